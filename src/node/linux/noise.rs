//! Whether bytes look like the noise that an encrypted disk shows where nothing was ever written.
//!
//! The cloud decrypts what it reads, and the decryption of nothing is evenly spread over all values. File systems,
//! partition tables, text and databases are not: some block among them is sparse or regular.

use super::probe::is_zero;

/// What is judged at a time. Fewer bytes say too little.
const BLOCK: usize = 4096;
/// The smallest part of a disk. In less than this even a single byte is evenly spread.
const SECTOR: usize = 512;
/// With the sum of squared deviations from an even spread: 255 on average, 23 its standard deviation. Noise leaves
/// this range less than once in 10^12 blocks.
const EVEN: std::ops::RangeInclusive<f64> = 90.0..=460.0;

/// Whether each block of `bytes` is noise or zero. The last may be smaller.
pub(super) fn is_noise(bytes: &[u8]) -> bool {
    bytes.chunks(BLOCK).all(|block| is_zero(block) || is_even(block))
}

pub(super) fn is_even(block: &[u8]) -> bool {
    let mut counts = [0u16; 256];
    for byte in block {
        counts[usize::from(*byte)] += 1;
    }
    let expected = f64::from(u16::try_from(block.len()).unwrap_or(u16::MAX)) / 256.0;
    let spread: f64 = counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
    block.len() >= SECTOR && EVEN.contains(&spread)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The same noise for the same seed.
    pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut generator = fastrand::Rng::with_seed(seed);
        std::iter::repeat_with(|| generator.u8(..)).take(length).collect()
    }

    #[test]
    fn noise_is_noise() {
        assert!(is_noise(&noise(1, 16 << 20)));
        assert!(is_noise(&noise(2, BLOCK + 512)));
        let mut half = noise(3, 2 * BLOCK);
        half[..BLOCK].fill(0);
        assert!(is_noise(&half));
    }

    #[test]
    fn too_little_is_not_noise() {
        let noise = noise(4, SECTOR);
        assert!(is_noise(&noise));
        for length in 1..SECTOR {
            assert!(!is_noise(&noise[..length]), "{length}");
        }
    }

    #[test]
    fn what_people_store_is_not_noise() {
        let mut sparse = noise(1, BLOCK);
        sparse[..BLOCK / 8].fill(0);
        assert!(!is_noise(&sparse));
        assert!(!is_noise(&b"a line of some log, like any other\n".repeat(200)));
        let counting: Vec<u8> = (0..=u8::MAX).cycle().take(BLOCK).collect();
        assert!(!is_noise(&counting));
        let mut one = vec![0; BLOCK];
        one[17] = 1;
        assert!(!is_noise(&one));
        // One such block is enough.
        let mut long = noise(5, 64 * BLOCK);
        long[40 * BLOCK..41 * BLOCK].copy_from_slice(&sparse);
        assert!(!is_noise(&long));
    }
}
