//! From a path to a row of the table, by hand: no pattern is compiled or tried per request.
//!
//! Paths are compared as they arrive. A percent sign, an empty segment or a dot segment is never
//! resolved: no route has them, so the answer is 404, and there is nothing to decode twice.

use crate::http::routes::{Route, Verb, param_name};
use crate::limits::{PARAMS_MAX, PATH_BYTES_MAX};

/// Where in the path its parameters stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Params {
    spans: [(u16, u16); PARAMS_MAX],
    count: usize,
}

impl Params {
    /// The parameters' texts, in order; `path` is the path that was matched.
    pub fn of<'a>(&self, path: &'a str) -> [&'a str; PARAMS_MAX] {
        let mut texts = [""; PARAMS_MAX];
        for (text, (from, to)) in texts.iter_mut().zip(&self.spans[..self.count]) {
            *text = path.get(usize::from(*from)..usize::from(*to)).unwrap_or_default();
        }
        texts
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    fn push(&mut self, from: usize, to: usize) -> Option<()> {
        let slot = self.spans.get_mut(self.count)?;
        *slot = (u16::try_from(from).ok()?, u16::try_from(to).ok()?);
        self.count += 1;
        Some(())
    }
}

/// What a path and a method lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matched {
    /// The row of that index.
    Row {
        /// Its index in the table.
        index: usize,
        /// Where its parameters are.
        params: Params,
    },
    /// The path is known, the method is not: what `Allow` says.
    WrongVerb {
        /// Method names, comma-separated.
        allow: &'static str,
    },
    /// No row has that path.
    Unknown,
}

/// The table as a tree of segments.
pub struct Matcher {
    nodes: Vec<Node>,
}

#[derive(Default)]
struct Node {
    literals: Vec<(&'static str, usize)>,
    param: Option<usize>,
    rows: [Option<usize>; Verb::ALL.len()],
}

impl Matcher {
    /// Makes the tree of a table.
    pub fn new(routes: &'static [Route]) -> Self {
        let mut matcher = Self { nodes: vec![Node::default()] };
        for (index, route) in routes.iter().enumerate() {
            let mut at = 0;
            for segment in segments(route.path) {
                at = matcher.child(at, segment);
            }
            matcher.nodes[at].rows[route.verb as usize] = Some(index);
        }
        matcher
    }

    fn child(&mut self, at: usize, segment: &'static str) -> usize {
        let fresh = self.nodes.len();
        let node = &mut self.nodes[at];
        let known = if param_name(segment).is_some() {
            *node.param.get_or_insert(fresh)
        } else if let Some((_, known)) =
            node.literals.iter().find(|(literal, _)| *literal == segment)
        {
            *known
        } else {
            node.literals.push((segment, fresh));
            fresh
        };
        if known == fresh {
            self.nodes.push(Node::default());
        }
        known
    }

    /// Finds the row. A literal segment goes before a parameter.
    pub fn find(&self, path: &str, verb: Option<Verb>) -> Matched {
        let Some((node, params)) = self.walk(path) else { return Matched::Unknown };
        match verb.and_then(|verb| node.rows[verb as usize]) {
            Some(index) => Matched::Row { index, params },
            None => match allow(&node.rows) {
                "" => Matched::Unknown,
                allow => Matched::WrongVerb { allow },
            },
        }
    }

    fn walk(&self, path: &str) -> Option<(&Node, Params)> {
        if path.len() > PATH_BYTES_MAX || !path.starts_with('/') {
            return None;
        }
        let (mut node, mut params, mut from) = (&self.nodes[0], Params::default(), 1);
        for segment in segments(path) {
            let to = from + segment.len();
            let literal = node.literals.iter().find(|(literal, _)| *literal == segment);
            let next = match literal {
                Some((_, next)) => *next,
                None => {
                    let next = node.param?;
                    if !is_plain(segment) {
                        return None;
                    }
                    params.push(from, to)?;
                    next
                }
            };
            node = &self.nodes[next];
            from = to + 1;
        }
        Some((node, params))
    }
}

/// The segments of a path; none for the root.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path[1..].split('/').filter(move |_| path.len() > 1)
}

/// Whether a segment can be a parameter: unreserved characters only, and no dot segment.
fn is_plain(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
        && segment
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~'))
}

/// What `Allow` says for a node: one of 32 fixed texts, so that nothing is built per request.
fn allow(rows: &[Option<usize>; Verb::ALL.len()]) -> &'static str {
    const TEXTS: [&str; 32] = [
        "",
        "GET, HEAD",
        "POST",
        "GET, HEAD, POST",
        "PUT",
        "GET, HEAD, PUT",
        "POST, PUT",
        "GET, HEAD, POST, PUT",
        "PATCH",
        "GET, HEAD, PATCH",
        "POST, PATCH",
        "GET, HEAD, POST, PATCH",
        "PUT, PATCH",
        "GET, HEAD, PUT, PATCH",
        "POST, PUT, PATCH",
        "GET, HEAD, POST, PUT, PATCH",
        "DELETE",
        "GET, HEAD, DELETE",
        "POST, DELETE",
        "GET, HEAD, POST, DELETE",
        "PUT, DELETE",
        "GET, HEAD, PUT, DELETE",
        "POST, PUT, DELETE",
        "GET, HEAD, POST, PUT, DELETE",
        "PATCH, DELETE",
        "GET, HEAD, PATCH, DELETE",
        "POST, PATCH, DELETE",
        "GET, HEAD, POST, PATCH, DELETE",
        "PUT, PATCH, DELETE",
        "GET, HEAD, PUT, PATCH, DELETE",
        "POST, PUT, PATCH, DELETE",
        "GET, HEAD, POST, PUT, PATCH, DELETE",
    ];
    let bits = rows
        .iter()
        .enumerate()
        .filter(|(_, row)| row.is_some())
        .map(|(bit, _)| 1 << bit)
        .sum::<usize>();
    TEXTS[bits]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::routes::ROUTES;

    fn sample(route: &Route) -> String {
        route
            .path
            .split('/')
            .map(|part| param_name(part).map_or(part, |_| "fm_1"))
            .collect::<Vec<_>>()
            .join("/")
    }

    #[test]
    fn every_row_is_found_under_its_own_path() {
        let matcher = Matcher::new(&ROUTES);
        for (at, route) in ROUTES.iter().enumerate() {
            let path = sample(route);
            let path = if path.is_empty() { "/".to_owned() } else { path };
            match matcher.find(&path, Some(route.verb)) {
                Matched::Row { index, params } => {
                    assert_eq!(index, at, "{route}");
                    assert_eq!(params.len(), route.params().count(), "{route}");
                    assert!(
                        params.of(&path)[..params.len()].iter().all(|text| *text == "fm_1"),
                        "{route}"
                    );
                }
                other => panic!("{route}: {other:?}"),
            }
        }
    }

    #[test]
    fn variants_of_a_known_path_are_unknown() {
        let matcher = Matcher::new(&ROUTES);
        assert!(matches!(matcher.find("/v1/forms/fm_1", Some(Verb::Get)), Matched::Row { .. }));
        for path in [
            "/v1/forms/",
            "//v1/forms",
            "/v1//forms",
            "/V1/forms",
            "/v1/forms/fm_1/",
            "/v1/forms/%66m_1",
            "/v1/forms/%2e",
            "/v1%2fforms",
            "/v1/%2566orms",
            "/v1/./forms",
            "/v1/x/../forms",
            "/v1/forms/.",
            "/v1/forms/..",
            "/v1/forms\\",
            "/v1/forms/a;b",
            "/v1/forms/a:b",
            "*",
            "",
            "v1/forms",
            "/v1/nothing",
            "/v1",
        ] {
            assert_eq!(matcher.find(path, Some(Verb::Get)), Matched::Unknown, "{path}");
        }
        let long = format!("/v1/forms/{}", "a".repeat(PATH_BYTES_MAX));
        assert_eq!(matcher.find(&long, Some(Verb::Get)), Matched::Unknown);
    }

    #[test]
    fn a_wrong_method_on_a_known_path_says_which_are_right() {
        let matcher = Matcher::new(&ROUTES);
        let Matched::WrongVerb { allow } = matcher.find("/v1/forms", Some(Verb::Delete)) else {
            panic!("DELETE on the collection is no route");
        };
        assert_eq!(allow, "GET, HEAD, POST");
        assert!(matches!(matcher.find("/v1/forms", None), Matched::WrongVerb { .. }));
    }
}
