//! The catalogue of lies.

use serde_json::{Map, Value, json};

/// One call of the API as it would go: what was sent, and the honest answer.
pub struct Exchange<'a> {
    pub request: &'a str,
    pub answer: &'a Value,
}

/// What arrives in place of the honest answer.
pub enum Told {
    Answer {
        status: u16,
        headers: &'static [(&'static str, &'static str)],
        body: Vec<u8>,
    },
    /// Bytes that may or may not be HTTP; then the connection closes.
    Raw(Vec<u8>),
    /// The connection closes.
    Nothing,
    /// Nothing comes, and the connection stays.
    Silence,
    /// A byte now and then.
    Slow(Vec<u8>),
}

/// What the client may make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No answer of the API: always an error.
    Nonsense,
    /// The same, and it is certain that nothing was done.
    Refusal,
    /// Odd, and says the same as the honest answer: taken for it.
    Odd,
    /// A wrong or missing part: an error where the part means something, the honest answer elsewhere.
    Part,
}

type Tell = Box<dyn Fn(&Exchange<'_>) -> Option<Told> + Send + Sync>;

/// `tell` is `None` where the honest answer has no such part.
pub struct Lie {
    pub name: String,
    pub kind: Kind,
    pub tell: Tell,
}

fn lie(name: &str, kind: Kind, tell: impl Fn(&Exchange<'_>) -> Option<Told> + Send + Sync + 'static) -> Lie {
    Lie { name: name.to_owned(), kind, tell: Box::new(tell) }
}

fn fine(body: impl Into<Vec<u8>>) -> Option<Told> {
    Some(Told::Answer { status: 200, headers: &[], body: body.into() })
}

/// A body that has nothing of the honest one.
fn body(name: &str, body: impl Into<Vec<u8>>) -> Lie {
    let body = body.into();
    lie(name, Kind::Nonsense, move |_| fine(body.clone()))
}

/// A change of the honest body's bytes.
fn bytes(name: &str, kind: Kind, change: fn(Vec<u8>) -> Vec<u8>) -> Lie {
    lie(name, kind, move |honest| fine(change(honest.answer.to_string().into_bytes())))
}

/// A change of the honest body's members.
fn members(
    name: &str,
    kind: Kind,
    change: impl Fn(&mut Map<String, Value>) -> Option<()> + Send + Sync + 'static,
) -> Lie {
    lie(name, kind, move |honest| {
        let mut answer = honest.answer.as_object().cloned()?;
        change(&mut answer)?;
        fine(Value::Object(answer).to_string())
    })
}

/// A member replaced, or taken away.
fn member(name: &str, kind: Kind, key: &'static str, value: Option<Value>) -> Lie {
    let shown = value.as_ref().map_or_else(|| "missing".to_owned(), brief);
    members(&format!("{name} {shown}"), kind, move |answer| {
        answer.get(key)?;
        match value.clone() {
            Some(value) => answer.insert(key.to_owned(), value),
            None => answer.remove(key),
        };
        Some(())
    })
}

fn brief(value: &Value) -> String {
    value.to_string().chars().take(40).collect()
}

/// The name of the answer's set.
pub fn set_of(answer: &Map<String, Value>) -> Option<String> {
    answer
        .iter()
        .find(|(name, value)| name.ends_with("Set") && value.is_array())
        .map(|(name, _)| name.clone())
}

/// A change of the whole set.
fn set(name: &str, kind: Kind, change: impl Fn(Value) -> Option<Value> + Send + Sync + 'static) -> Lie {
    members(name, kind, move |answer| {
        let set = set_of(answer)?;
        match change(answer.remove(&set)?) {
            Some(value) => answer.insert(set, value),
            None => None,
        };
        Some(())
    })
}

/// A change of each entry of the set.
fn entries(
    name: &str,
    kind: Kind,
    change: impl Fn(&mut Map<String, Value>) -> Option<()> + Send + Sync + 'static,
) -> Lie {
    members(name, kind, move |answer| {
        let set = set_of(answer)?;
        let entries = answer.get_mut(&set)?.as_array_mut()?;
        // A lie about nothing is none.
        (!entries.is_empty()).then_some(())?;
        entries.iter_mut().try_for_each(|entry| change(entry.as_object_mut()?))
    })
}

/// The member by which an entry is known.
fn id_of(entry: &Map<String, Value>) -> Option<String> {
    ["UDiskId", "UHostId", "PHostId"].into_iter().find(|id| is_id(entry, id)).map(str::to_owned)
}

/// A disk has the retired id of its host too.
fn is_id(entry: &Map<String, Value>, name: &str) -> bool {
    entry.contains_key(name) && (name == "UDiskId" || !entry.contains_key("UDiskId"))
}

fn nested(depth: usize) -> Vec<u8> {
    [vec![b'['; depth], vec![b']'; depth]].concat()
}

fn status(status: u16, kind: Kind) -> [Lie; 2] {
    let html = format!("<html><body><h1>{status}</h1></body></html>");
    [
        lie(&format!("HTTP {status} with a page"), kind, move |_| {
            Some(Told::Answer {
                status,
                headers: &[("content-type", "text/html")],
                body: html.clone().into(),
            })
        }),
        lie(&format!("HTTP {status} with the right answer"), kind, move |honest| {
            Some(Told::Answer { status, headers: &[], body: honest.answer.to_string().into() })
        }),
    ]
}

/// An answer that quotes the request, its keys and signature included.
fn echoes() -> Vec<Lie> {
    let mut lies = vec![
        lie("the request as a page", Kind::Nonsense, |honest| fine(honest.request)),
        // "Signature VerifyAC Error"
        lie("the request as a message", Kind::Refusal, |honest| {
            fine(json!({"RetCode": 171, "Message": honest.request}).to_string())
        }),
        lie("the request as a bad gateway", Kind::Nonsense, |honest| {
            Some(Told::Answer { status: 502, headers: &[], body: honest.request.into() })
        }),
        lie("the request with small escapes", Kind::Nonsense, |honest| {
            fine(honest.request.replace("%2B", "%2b").replace("%2F", "%2f").replace("%3D", "%3d"))
        }),
        lie("the request without escapes", Kind::Nonsense, |honest| fine(decoded(honest.request))),
        lie("the request without escapes, in JSON", Kind::Nonsense, |honest| {
            fine(json!({"Request": decoded(honest.request)}).to_string().replace('/', "\\/"))
        }),
    ];
    // So that the end of what an error quotes falls into each secret.
    for length in (0..160).step_by(8) {
        lies.push(lie(&format!("secrets after {length} characters"), Kind::Nonsense, move |honest| {
            let request = decoded(honest.request);
            let start = request.find("PublicKey=")?;
            fine(format!("{}{}", ".".repeat(length), &request[start..]))
        }));
    }
    lies.push(lie("the request cut in the signature", Kind::Nonsense, |honest| {
        let request = decoded(honest.request);
        let start = request.find("Signature=")?;
        fine(&request.as_bytes()[start..start + 40])
    }));
    lies
}

pub fn decoded(form: &str) -> String {
    let url = reqwest::Url::parse(&format!("http://x/?{form}")).unwrap();
    url.query_pairs().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Every lie.
pub fn all() -> Vec<Lie> {
    use Kind::{Nonsense, Odd, Part, Refusal};
    let mut lies = vec![
        body("nothing", ""),
        body("blanks", " \r\n\t "),
        body("null", "null"),
        body("a list", "[]"),
        body("a number", "0"),
        body("a text", "\"RetCode\""),
        body("true", "true"),
        body("an empty object", "{}"),
        body("a page", "<!DOCTYPE html><html><body>Please log in: RetCode 0</body></html>"),
        body("garbage", b"\x00\xff\xfe{]garbage\x80".to_vec()),
        body("zeros", vec![0; 512]),
        body("deep nesting", nested(100_000)),
        body("a megabyte of JSON", format!("{{\"Filler\":\"{}\"}}", "x".repeat(1 << 20))),
        body("a megabyte of blanks", vec![b' '; 1 << 20]),
        body(
            "more than a megabyte of success",
            format!("{{\"RetCode\":0,\"F\":\"{}\"}}", "x".repeat(1 << 20)),
        ),
        body("five megabytes of page", vec![b'<'; 5 << 20]),
        body("XML", "<Response><RetCode>0</RetCode></Response>"),
        body("a form", "RetCode=0&TotalCount=0"),
        body("a number that no type holds", "{\"RetCode\":1e999}"),
        body("NaN", "{\"RetCode\":NaN}"),
        body("single quotes", "{'RetCode':0,'TotalCount':0,'DataSet':[]}"),
        bytes("half of it", Nonsense, |mut body| {
            body.truncate(body.len() / 2);
            body
        }),
        bytes("all but the last byte", Nonsense, |mut body| {
            body.pop();
            body
        }),
        bytes("its first byte", Nonsense, |mut body| {
            body.truncate(1);
            body
        }),
        bytes("twice", Nonsense, |body| [body.clone(), body].concat()),
        bytes("rubbish behind it", Nonsense, |body| [body, b"<!-- cached -->".to_vec()].concat()),
        bytes("rubbish before it", Nonsense, |body| [b")]}',\n".to_vec(), body].concat()),
        bytes("in a list", Nonsense, |body| [vec![b'['], body, vec![b']']].concat()),
        bytes("as a text", Nonsense, |body| Value::from(String::from_utf8(body).unwrap()).to_string().into()),
        bytes("in UTF-16", Nonsense, |body| body.into_iter().flat_map(|byte| [byte, 0]).collect()),
        bytes("names in small letters", Nonsense, |body| body.to_ascii_lowercase()),
        bytes("in an envelope", Nonsense, |body| [b"{\"data\":".to_vec(), body, vec![b'}']].concat()),
        bytes("blanks around it", Odd, |body| [b" \n".to_vec(), body, b"\r\n".to_vec()].concat()),
        lie("as text/html", Odd, |honest| {
            Some(Told::Answer {
                status: 200,
                headers: &[("content-type", "text/html")],
                body: honest.answer.to_string().into(),
            })
        }),
        lie("without a type", Odd, |honest| {
            Some(Told::Answer { status: 200, headers: &[], body: honest.answer.to_string().into() })
        }),
        lie("as an image in gzip", Odd, |honest| {
            Some(Told::Answer {
                status: 200,
                headers: &[("content-type", "image/png"), ("content-encoding", "gzip")],
                body: honest.answer.to_string().into(),
            })
        }),
        lie("HTTP 206", Odd, |honest| {
            Some(Told::Answer { status: 206, headers: &[], body: honest.answer.to_string().into() })
        }),
        lie("HTTP 204 with nothing", Nonsense, |_| {
            Some(Told::Answer { status: 204, headers: &[], body: vec![] })
        }),
        lie("no answer", Nonsense, |_| Some(Told::Nothing)),
        lie("silence", Nonsense, |_| Some(Told::Silence)),
        lie("a byte now and then", Nonsense, |honest| Some(Told::Slow(honest.answer.to_string().into()))),
        lie("another protocol", Nonsense, |_| Some(Told::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()))),
        lie("half a head", Nonsense, |_| Some(Told::Raw(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()))),
        lie("a head without end", Nonsense, |_| {
            Some(Told::Raw([b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat()))
        }),
        lie("a length that is none", Nonsense, |_| {
            Some(Told::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}".to_vec()))
        }),
        lie("a body shorter than its length", Nonsense, |honest| {
            Some(Told::Raw(
                format!("HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n{}", honest.answer).into(),
            ))
        }),
        lie("a body longer than its length", Nonsense, |honest| {
            Some(Told::Raw(format!("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}", honest.answer).into()))
        }),
        lie("chunks that are none", Nonsense, |honest| {
            Some(Told::Raw(
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", honest.answer).into(),
            ))
        }),
        lie("chunks without end", Nonsense, |honest| {
            Some(Told::Raw(
                format!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{:.5}\r\n",
                    honest.answer.to_string()
                )
                .into(),
            ))
        }),
        lie("\"unknown disk\" from a gateway", Nonsense, |_| {
            Some(Told::Answer {
                status: 502,
                headers: &[],
                body: json!({"RetCode": 17041, "Message": "udisk not exist"}).to_string().into(),
            })
        }),
        lie("\"unknown host\" from a gateway", Nonsense, |_| {
            Some(Told::Answer {
                status: 404,
                headers: &[],
                body: json!({"RetCode": 54002, "Message": "not found"}).to_string().into(),
            })
        }),
        lie("an empty set from a gateway", Nonsense, |_| {
            Some(Told::Answer {
                status: 404,
                headers: &[],
                body: json!({"RetCode": 0, "TotalCount": 0, "DataSet": [], "UHostSet": [], "PHostSet": []})
                    .to_string()
                    .into(),
            })
        }),
        lie("the answer to another call", Nonsense, |_| {
            fine(json!({"RetCode": 0, "Action": "DescribeRegionResponse", "Regions": []}).to_string())
        }),
    ];
    for code in [301, 302, 303, 307, 308] {
        lies.push(lie(&format!("HTTP {code} to elsewhere"), Nonsense, move |honest| {
            Some(Told::Answer {
                status: code,
                headers: &[("location", "/followed")],
                body: honest.answer.to_string().into(),
            })
        }));
    }
    for code in [400, 401, 403, 404, 405, 408, 413, 418, 425, 500, 501, 502, 503, 504, 520, 599] {
        lies.extend(status(code, Nonsense));
    }
    let [page, success] = status(429, Nonsense);
    lies.extend([Lie { kind: Refusal, ..page }, success]);
    for value in [
        json!(null),
        json!(0.5),
        json!("zero"),
        json!(""),
        json!([0]),
        json!({"0": 0}),
        json!(false),
        json!(true),
        json!(18_446_744_073_709_551_615_u64),
        json!("0x0"),
    ] {
        lies.push(member("RetCode", Nonsense, "RetCode", Some(value)));
    }
    lies.push(member("RetCode", Nonsense, "RetCode", None));
    lies.push(member("RetCode", Odd, "RetCode", Some(json!("0"))));
    lies.push(member("RetCode", Odd, "RetCode", Some(json!(" 0 "))));
    lies.push(members("nothing but RetCode", Part, |answer| {
        answer.retain(|name, _| name == "RetCode");
        Some(())
    }));
    lies.push(members("more members", Odd, |answer| {
        answer.insert("Message".into(), json!("internal error"));
        answer.insert("Disks".into(), json!([{"UDiskId": "bsm-other"}]));
        Some(())
    }));

    for value in [
        json!(null),
        json!({}),
        json!("none"),
        json!(""),
        json!(0),
        json!(false),
        json!([null]),
        json!(["bsm-1"]),
        json!([[]]),
        json!([{}]),
        json!([0, 1]),
    ] {
        let name = format!("set {}", brief(&value));
        lies.push(set(&name, Nonsense, move |_| Some(value.clone())));
    }
    lies.push(set("set missing", Nonsense, |_| None));
    lies.push(set("set in a list", Nonsense, |set| Some(json!([set]))));
    lies.push(set("set by id", Nonsense, |set| Some(json!({"bsm-1": set[0]}))));
    lies.push(set("its one entry without a list", Nonsense, |set| {
        Some(set.get(0).cloned().unwrap_or(json!({})))
    }));
    lies.push(set("set as text", Nonsense, |set| Some(json!(set.to_string()))));
    lies.push(set("empty set, and a count", Part, |_| Some(json!([]))));
    for count in
        [json!(null), json!("many"), json!(-1), json!(1.5), json!([]), json!({}), json!(true), json!("")]
    {
        let name = format!("empty set, count {}", brief(&count));
        lies.push(members(&name, Nonsense, move |answer| {
            let set = set_of(answer)?;
            answer.insert(set, json!([]));
            answer.insert("TotalCount".into(), count.clone());
            Some(())
        }));
    }
    lies.push(members("empty set, no count", Nonsense, |answer| {
        let set = set_of(answer)?;
        answer.insert(set, json!([]));
        answer.remove("TotalCount").map(drop)
    }));
    lies.push(members("empty set and null for another", Nonsense, |answer| {
        let set = set_of(answer)?;
        answer.insert(set, json!(null));
        answer.insert("OtherSet".into(), json!([]));
        Some(())
    }));
    for count in
        [json!(null), json!("many"), json!(-1), json!(1.5), json!({}), json!(0), json!(u64::MAX), json!("1")]
    {
        lies.push(member("count", Part, "TotalCount", Some(count)));
    }
    lies.push(member("count", Part, "TotalCount", None));

    for value in [
        json!(null),
        json!(""),
        json!({}),
        json!([]),
        json!(["bsm-1"]),
        json!("bsm-1/../x"),
        json!("x".repeat(200)),
        json!("bsm 1"),
    ] {
        let name = format!("entry's id {}", brief(&value));
        lies.push(entries(&name, Nonsense, move |entry| {
            entry.insert(id_of(entry)?, value.clone()).map(drop)
        }));
    }
    lies.push(entries("entry's id missing", Nonsense, |entry| entry.remove(&id_of(entry)?).map(drop)));
    lies.push(entries("entry of somebody else", Part, |entry| {
        entry.insert(id_of(entry)?, json!("bsm-other")).map(drop)
    }));
    lies.push(set("somebody else's entry first", Part, |mut set| {
        let mut other = set.get(0)?.clone();
        let id = id_of(other.as_object()?)?;
        other[id] = json!("bsm-other");
        set.as_array_mut()?.insert(0, other);
        Some(set)
    }));
    for field in ["Size", "Status", "Zone", "Name", "State", "PMStatus"] {
        for value in [json!(null), json!({}), json!([]), json!(["x"])] {
            let name = format!("{field} {}", brief(&value));
            let kind = if field == "Zone" { Part } else { Nonsense };
            lies.push(entries(&name, kind, move |entry| {
                entry.insert(field.into(), entry.get(field).and(Some(value.clone()))?).map(drop)
            }));
        }
        let kind = if field == "Zone" { Part } else { Nonsense };
        lies.push(entries(&format!("{field} missing"), kind, move |entry| entry.remove(field).map(drop)));
    }
    for (field, value) in [
        ("Size", json!("large")),
        ("Size", json!(-20)),
        ("Size", json!(20.5)),
        ("Size", json!(1_u64 << 40)),
        ("Size", json!("")),
        ("Size", json!(true)),
        ("Status", json!("")),
        ("Zone", json!("a/b")),
        ("HostId", json!({})),
        ("HostId", json!(["uhost-1"])),
        ("HostId", json!("a/b")),
        ("IsBoot", json!("perhaps")),
        ("IsBoot", json!({})),
        ("CreateTime", json!("yesterday")),
        ("IPSet", json!("10.0.0.1")),
        ("IPSet", json!({})),
        ("IPSet", json!(["10.0.0.1"])),
    ] {
        let name = format!("{field} {}", brief(&value));
        lies.push(entries(&name, Nonsense, move |entry| {
            entry.insert(field.into(), entry.get(field).and(Some(value.clone()))?).map(drop)
        }));
    }
    for (field, value) in [
        ("Status", json!("Levitating")),
        ("DiskType", json!("Tape")),
        ("DiskType", json!({})),
        ("DeviceName", json!({})),
        ("HostIP", json!("?")),
        ("HostIP", json!([])),
        ("RdmaClusterId", json!(7)),
        ("Tag", json!({})),
        ("ChargeType", json!([])),
        ("Name", json!("other")),
        ("IPSet", json!(null)),
        ("IPSet", json!([])),
        ("UHostId", json!({})),
    ] {
        let name = format!("{field} {}", brief(&value));
        lies.push(entries(&name, Part, move |entry| {
            entry.insert(field.into(), entry.get(field).and(Some(value.clone()))?).map(drop)
        }));
    }

    for value in [
        json!(null),
        json!([]),
        json!(""),
        json!([""]),
        json!({}),
        json!([{}]),
        json!([["bsm-1"]]),
        json!(["bsm-1", "bsm-2"]),
        json!(["a/b"]),
        json!(["x".repeat(200)]),
    ] {
        lies.push(member("new disk's id", Nonsense, "UDiskId", Some(value)));
    }
    lies.push(member("new disk's id", Nonsense, "UDiskId", None));
    for value in [json!("perhaps"), json!({}), json!(["true"]), json!(2)] {
        lies.push(member("restart", Part, "NeedRestart", Some(value)));
    }
    lies.extend(echoes());
    lies
}
