//! Prometheus' text format (0.0.4).

use std::fmt::Write;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Counter,
    Gauge,
}

/// A family of samples, written as they come.
#[derive(Default)]
pub(crate) struct Exposition(String);

impl Exposition {
    /// Begins a family. A family without samples is not shown.
    pub(crate) fn family(&mut self, of: Of, name: &'static str, help: &str) -> Family<'_> {
        let kind = match of {
            Of::Counter => "counter",
            Of::Gauge => "gauge",
        };
        let head = format!("# HELP {name} {}\n# TYPE {name} {kind}\n", help.replace('\\', "\\\\").replace('\n', "\\n"));
        Family { out: &mut self.0, name, head: Some(head) }
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }
}

pub(crate) struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
    head: Option<String>,
}

impl Family<'_> {
    /// `at_ms`: when it was measured, where that is told.
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: f64, at_ms: Option<i64>) {
        if let Some(head) = self.head.take() {
            self.out.push_str(&head);
        }
        self.out.push_str(self.name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.out, "{}{label}=\"{value}\"", if at == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = match at_ms {
            Some(at) => writeln!(self.out, " {value} {at}"),
            None => writeln!(self.out, " {value}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_format() {
        let mut out = Exposition::default();
        out.family(Of::Gauge, "none", "Nothing.");
        let mut family = out.family(Of::Counter, "a_total", "Counts\nthings.");
        family.sample(&[], 1.5, None);
        family.sample(&[("x", "a\"b\\c\nd"), ("y", "")], 2e9, Some(7));
        assert_eq!(
            out.finish(),
            "# HELP a_total Counts\\nthings.\n# TYPE a_total counter\na_total 1.5\n\
             a_total{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 2000000000 7\n"
        );
    }
}
