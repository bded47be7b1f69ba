//! Tables for people: aligned columns that fit a line, where too much is cut in the middle of what can be cut.

use std::fmt::Write as _;

/// Between two columns.
const GAP: usize = 2;
/// What stands for what was cut.
const CUT: char = '…';

/// A column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    title: &'static str,
    /// When it is cut, and down to which width; `None`: never.
    cuts: Option<(u8, usize)>,
    right: bool,
}

pub(super) const fn fixed(title: &'static str) -> Column {
    Column { title, cuts: None, right: false }
}

pub(super) const fn number(title: &'static str) -> Column {
    Column { title, cuts: None, right: true }
}

/// A column that is cut in its turn, down to `least`.
pub(super) const fn flexible(title: &'static str, turn: u8, least: usize) -> Column {
    Column { title, cuts: Some((turn, least)), right: false }
}

/// Rows of cells, each with remarks below it.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    columns: [Column; N],
    rows: Vec<([String; N], Vec<String>)>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(columns: [Column; N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: [String; N], remarks: Vec<String>) {
        self.rows.push((cells.map(|cell| printable(&cell)), remarks));
    }

    /// The text. With a `width` no line is longer, if the columns that can be cut allow it.
    pub(super) fn print(&self, width: Option<usize>) -> String {
        let widths = self.widths(width);
        let mut text = String::new();
        line(&mut text, &self.columns, &widths, &self.columns.map(|column| column.title.to_owned()));
        for (cells, remarks) in &self.rows {
            line(&mut text, &self.columns, &widths, cells);
            for remark in remarks {
                wrap(&mut text, remark, width.unwrap_or(usize::MAX));
            }
        }
        text
    }

    fn widths(&self, limit: Option<usize>) -> [usize; N] {
        let mut widths = self.columns.map(|column| length(column.title));
        for (cells, _) in &self.rows {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(length(cell));
            }
        }
        let Some(limit) = limit else { return widths };
        let mut over = (widths.iter().sum::<usize>() + GAP * N.saturating_sub(1)).saturating_sub(limit);
        let mut turns: Vec<_> = widths
            .iter_mut()
            .zip(&self.columns)
            .filter_map(|(width, column)| {
                column.cuts.map(|(turn, least)| (turn, width, least.max(length(column.title))))
            })
            .collect();
        turns.sort_by_key(|(turn, ..)| *turn);
        for (_, width, least) in turns {
            let cut = over.min(width.saturating_sub(least));
            *width -= cut;
            over -= cut;
        }
        widths
    }
}

fn line<const N: usize>(text: &mut String, columns: &[Column; N], widths: &[usize; N], cells: &[String; N]) {
    let start = text.len();
    for ((column, width), cell) in columns.iter().zip(widths).zip(cells) {
        let cell = cut(cell, *width);
        let space = width.saturating_sub(length(&cell));
        let (before, after) = if column.right { (space, 0) } else { (0, space) };
        let _ = write!(text, "{:before$}{cell}{:after$}{:GAP$}", "", "", "");
    }
    let end = text.trim_end_matches(' ').len().max(start);
    text.truncate(end);
    text.push('\n');
}

/// Cuts in the middle: names differ at their ends.
fn cut(cell: &str, width: usize) -> String {
    if length(cell) <= width {
        return cell.to_owned();
    }
    let kept = width.saturating_sub(1);
    let tail = at_most(cell.chars().rev(), kept / 3);
    at_most(cell.chars(), kept - kept / 3).into_iter().chain([CUT]).chain(tail.into_iter().rev()).collect()
}

/// As many of the characters as fit into so many columns.
fn at_most(characters: impl Iterator<Item = char>, width: usize) -> Vec<char> {
    let mut left = width;
    characters.map_while(|c| (left >= columns(c)).then(|| (left -= columns(c), c).1)).collect()
}

/// A remark below a row, on lines of its own.
fn wrap(text: &mut String, remark: &str, width: usize) {
    const FIRST: &str = "  ! ";
    const NEXT: &str = "    ";
    let mut column = 0;
    for word in printable(remark).split(' ').filter(|word| !word.is_empty()) {
        if column > 0 && column + 1 + length(word) > width {
            text.push('\n');
            text.push_str(NEXT);
            column = NEXT.len();
        } else if column == 0 {
            text.push_str(FIRST);
            column = FIRST.len();
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length(word);
    }
    text.push('\n');
}

/// Names and messages come from others: nothing of them may move the cursor or begin a line.
pub(super) fn printable(text: &str) -> String {
    let mut plain: String =
        text.chars().map(|c| if c.is_control() || is_invisible(c) { ' ' } else { c }).collect();
    plain.truncate(plain.trim_end().len());
    plain
}

/// Marks that turn the direction of a text.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// How many columns of a terminal a text takes: characters of East Asian scripts take two.
fn length(text: &str) -> usize {
    text.chars().map(columns).sum()
}

fn columns(c: char) -> usize {
    if is_wide(c) { 2 } else { 1 }
}

fn is_wide(c: char) -> bool {
    matches!(u32::from(c), 0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x20000..=0x3fffd)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(rows: &[[&str; 3]]) -> Table<3> {
        let mut table = Table::new([flexible("NAME", 0, 8), number("SIZE"), fixed("STATE")]);
        for row in rows {
            table.row(row.map(str::to_owned), Vec::new());
        }
        table
    }

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let text = table(&[["a", "5", "Available"], ["data-mysql-0", "100", ""]]).print(None);
        assert_eq!(
            text,
            "NAME          SIZE  STATE\n\
             a                5  Available\n\
             data-mysql-0   100\n"
        );
    }

    #[test]
    fn what_does_not_fit_is_cut_in_the_middle_of_what_may_be_cut() {
        let text = table(&[["pvc-0b9c1a52-7f4e-4d6a", "100", "Available"]]).print(Some(28));
        assert_eq!(text, "NAME         SIZE  STATE\npvc-0b9…d6a   100  Available\n");
        // Never below what still tells one from the other.
        let text = table(&[["pvc-0b9c1a52-7f4e-4d6a", "100", "Available"]]).print(Some(1));
        assert!(text.contains("pvc-0…6a   100  Available"), "{text}");
    }

    #[test]
    fn remarks_are_wrapped_below_their_row() {
        let mut table = table(&[]);
        table.row(["a".into(), "1".into(), "s".into()], vec!["one two three four".into()]);
        assert_eq!(table.print(Some(14)), "NAME  SIZE  STATE\na        1  s\n  ! one two\n    three four\n");
    }

    #[test]
    fn texts_of_others_stay_in_their_place() {
        assert_eq!(printable("a\u{1b}[31m\nb\u{202e}c\n"), "a [31m b c");
        let text = table(&[["数据盘", "1", "x"], ["abcdef", "1", "x"]]).print(None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[1], lines[2]), ("数据盘     1  x", "abcdef     1  x"));
    }

    proptest! {
        #[test]
        fn any_cell_prints_on_one_line(cell in "\\PC{0,40}|[\\x00-\\x7f]{0,40}", width in proptest::option::of(0_usize..60)) {
            let mut table = table(&[]);
            table.row([cell.clone(), cell.clone(), cell], Vec::new());
            prop_assert_eq!(table.print(width).lines().count(), 2);
        }
    }
}
