//! Metrics in the Prometheus text format, version 0.0.4. Knows the format and no metric.

use std::fmt::Write;

/// A text under construction.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// What a number means over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Exposition {
    /// A metric with one value.
    pub fn value(&mut self, kind: Kind, name: &str, help: &str, value: impl Into<Number>) {
        self.family(kind, name, help, [([], value)]);
    }

    /// A metric with a value for each set of labels. A family without values is left out.
    pub fn family<const N: usize, V: Into<Number>>(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'static str, String); N], V)>,
    ) {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return;
        }
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.push(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name}"));
        let mut is_first = true;
        for (labels, value) in values {
            if !std::mem::take(&mut is_first) {
                self.text.push_str(name);
            }
            let mut before = '{';
            for (label, text) in &labels {
                self.push(format_args!("{before}{label}=\"{}\"", escaped(text)));
                before = ',';
            }
            if N > 0 {
                self.text.push('}');
            }
            let Number(value) = value.into();
            self.push(format_args!(" {value}\n"));
        }
    }

    /// Text that has the format already.
    pub fn append(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.text
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.text.write_fmt(text).expect("a String takes any text");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A metric's value: a 64-bit float, as the format has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number(f64);

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self(value)
    }
}
impl From<u64> for Number {
    #[expect(clippy::cast_precision_loss, reason = "a metric is exact up to 2^53, which is enough")]
    fn from(value: u64) -> Self {
        Self(value as f64)
    }
}
impl From<usize> for Number {
    fn from(value: usize) -> Self {
        Self::from(value as u64)
    }
}
impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self(f64::from(u8::from(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_help_type_and_escaped_labels() {
        let mut text = Exposition::default();
        text.value(Kind::Gauge, "up", "Whether it runs.", true);
        let values = [([("kind", "a\"b".to_owned())], 1_u64), ([("kind", "c".to_owned())], 2)];
        text.family(Kind::Counter, "things_total", "Things.", values);
        text.family::<0, u64>(Kind::Gauge, "nothing", "Nothing.", []);
        assert_eq!(
            text.finish(),
            "# HELP up Whether it runs.\n# TYPE up gauge\nup 1\n\
             # HELP things_total Things.\n# TYPE things_total counter\n\
             things_total{kind=\"a\\\"b\"} 1\nthings_total{kind=\"c\"} 2\n"
        );
    }
}
