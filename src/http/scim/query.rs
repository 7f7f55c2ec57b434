//! What a request asks for: which resources, which part of the list, which part of each.
//!
//! Refuses: numbers that are none, and both kinds of projection at once.

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use actors::tenant::scim::filter::Filter;
use actors::tenant::scim::lists::{ListResources, RESULTS_MAX};
use actors::tenant::scim::schema::{GROUP, Schema, USER};
use actors::tenant::scim::shape::Projection;
use actors::tenant::scim::{Attributes, Fault};
use futures_util::future::{Ready, ready};
use serde_json::Value;

use crate::http::extract::parse_pairs;
use crate::http::problem::Problem;

/// People alone.
pub(super) const USERS: &[&Schema] = &[&USER];
/// Teams alone.
pub(super) const GROUPS: &[&Schema] = &[&GROUP];
/// Both, people first.
pub(super) const BOTH: &[&Schema] = &[&USER, &GROUP];

/// Resources of one answer when the client does not say.
const COUNT_DEFAULT: usize = 100;
/// Longest filter, in bytes.
const FILTER_BYTES_MAX: usize = crate::limits::QUERY_BYTES_MAX;
/// Attributes that one request names.
const NAMES_MAX: usize = 100;

/// What is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    filter: Option<Filter>,
    /// From 1 on.
    pub start: usize,
    count: usize,
    /// Which part of each resource.
    pub projection: Projection,
}

impl Default for Asked {
    fn default() -> Self {
        Self { filter: None, start: 1, count: COUNT_DEFAULT, projection: Projection::default() }
    }
}

impl FromRequest for Asked {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::in_query(request.query_string()))
    }
}

fn invalid(message: impl Into<String>) -> Problem {
    Fault::InvalidValue(message.into()).into()
}

impl Asked {
    /// What a query string asks for.
    pub fn in_query(query: &str) -> Result<Self, Problem> {
        let mut asked = Self::default();
        for (name, value) in parse_pairs(query)? {
            let number = || {
                let number = value.parse::<i64>();
                number.map_err(|_| invalid(format!("{name} must be a whole number")))
            };
            match name.as_str() {
                "filter" => asked.set_filter(&value)?,
                "startIndex" => asked.set_start(number()?),
                "count" => asked.set_count(number()?),
                "attributes" => asked.projection.only = names(value.split(','))?,
                "excludedAttributes" => asked.projection.without = names(value.split(','))?,
                _ => {}
            }
        }
        asked.checked()
    }

    /// What the body of a search asks for.
    pub fn in_body(body: &Attributes) -> Result<Self, Problem> {
        let mut asked = Self::default();
        for (name, value) in body {
            let number = || {
                let number = value.as_i64();
                number.ok_or_else(|| invalid(format!("{name} must be a whole number")))
            };
            let list = || {
                let wrong = || invalid(format!("{name} must be a list of texts"));
                let items = value.as_array().ok_or_else(wrong)?;
                let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
                names(texts.ok_or_else(wrong)?.into_iter())
            };
            match name.to_ascii_lowercase().as_str() {
                _ if value.is_null() => {}
                "filter" => {
                    let text = value.as_str();
                    asked.set_filter(text.ok_or_else(|| invalid("filter must be a text"))?)?;
                }
                "startindex" => asked.set_start(number()?),
                "count" => asked.set_count(number()?),
                "attributes" => asked.projection.only = list()?,
                "excludedattributes" => asked.projection.without = list()?,
                _ => {}
            }
        }
        asked.checked()
    }

    fn set_filter(&mut self, text: &str) -> Result<(), Problem> {
        if text.len() > FILTER_BYTES_MAX {
            let message = format!("a filter has at most {FILTER_BYTES_MAX} bytes");
            return Err(Fault::InvalidFilter(message).into());
        }
        self.filter = Some(Filter::parse(text)?);
        Ok(())
    }

    /// Less than the first is the first (RFC 7644 §3.4.2.4).
    fn set_start(&mut self, start: i64) {
        self.start = usize::try_from(start).unwrap_or_default().max(1);
    }

    /// Less than none is none, and more than the most is the most.
    fn set_count(&mut self, count: i64) {
        self.count = usize::try_from(count).unwrap_or_default().min(RESULTS_MAX);
    }

    fn checked(self) -> Result<Self, Problem> {
        if !self.projection.only.is_empty() && !self.projection.without.is_empty() {
            return Err(invalid("attributes and excludedAttributes exclude each other"));
        }
        Ok(self)
    }

    /// The question that is put to the tenant.
    pub fn list(self, schemas: &'static [&'static Schema], base: String) -> ListResources {
        let Self { filter, start, count, .. } = self;
        ListResources { schemas, filter, start, count, base }
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<String>, Problem> {
    let names: Vec<String> =
        names.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if names.len() > NAMES_MAX {
        return Err(invalid(format!("at most {NAMES_MAX} attributes can be named")));
    }
    Ok(names)
}
