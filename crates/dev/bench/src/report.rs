//! Figures, rows and the table of them.

use comfy_table::{Table, presets};
use serde_json::{Value, json};

/// Measurements of one thing, sorted.
#[derive(Clone)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    /// Of at least one value.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "nothing was measured");
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    pub(crate) fn one(value: f64) -> Self {
        Self(vec![value])
    }

    pub(crate) fn map(self, change: impl Fn(f64) -> f64) -> Self {
        Self::of(self.0.into_iter().map(change).collect())
    }

    /// The value below which this part (0 to 1) of all lies.
    pub(crate) fn at(&self, part: f64) -> f64 {
        self.0[((self.0.len() - 1) as f64 * part).round() as usize]
    }

    pub(crate) fn median(&self) -> f64 {
        self.at(0.5)
    }

    fn text(&self) -> String {
        let median = number(self.median());
        match self.0.len() {
            1 => median,
            0..20 => format!("{median} ({}–{})", number(self.at(0.0)), number(self.at(1.0))),
            _ => format!("{median} (p99 {})", number(self.at(0.99))),
        }
    }

    fn json(&self) -> Value {
        json!({"n": self.0.len(), "min": self.at(0.0), "p50": self.median(), "p99": self.at(0.99), "max": self.at(1.0)})
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// One thing measured: minke's figures, what cannot be beaten, and others'.
pub(crate) struct Row {
    name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) goal: &'static str,
    pub(crate) minke: Option<Figures>,
    pub(crate) floor: Option<Figures>,
    /// Each with its figures, or why there are none.
    pub(crate) peers: Vec<(String, Result<Figures, String>)>,
}

impl Row {
    pub(crate) fn named(name: &'static str) -> Self {
        Self { name, unit: "ms", goal: "", minke: None, floor: None, peers: Vec::new() }
    }

    /// Adds a peer; one that cannot be measured is left out by name.
    pub(crate) fn peer(&mut self, name: &str, figures: anyhow::Result<Figures>) {
        self.peers.push((name.to_owned(), figures.map_err(|error| format!("{error:#}"))));
    }
}

#[derive(Default)]
pub(crate) struct Report(Vec<Row>);

impl Report {
    pub(crate) fn extend(&mut self, rows: Vec<Row>) {
        self.0.extend(rows);
    }

    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(["what", "unit", "minke", "floor", "× floor", "others", "goal"]);
        for row in &self.0 {
            let text = |figures: &Option<Figures>| figures.as_ref().map_or_else(String::new, Figures::text);
            let ratio = row.minke.as_ref().zip(row.floor.as_ref());
            let ratio = ratio.map_or_else(String::new, |(minke, floor)| number(minke.median() / floor.median()));
            let peers = row.peers.iter().map(|(name, figures)| match figures {
                Ok(figures) => format!("{name} {}", figures.text()),
                Err(reason) => format!("{name} left out: {reason}"),
            });
            let peers = peers.collect::<Vec<_>>().join("; ");
            table.add_row([row.name, row.unit, &text(&row.minke), &text(&row.floor), &ratio, &peers, row.goal]);
        }
        table.to_string()
    }

    pub(crate) fn json(&self) -> Value {
        let figures = |figures: &Option<Figures>| figures.as_ref().map(Figures::json);
        let rows = self.0.iter().map(|row| {
            let peers = row.peers.iter().map(|(name, figures)| match figures {
                Ok(figures) => json!({"name": name, "figures": figures.json()}),
                Err(reason) => json!({"name": name, "left_out": reason}),
            });
            json!({
                "what": row.name, "unit": row.unit, "goal": row.goal, "minke": figures(&row.minke),
                "floor": figures(&row.floor), "peers": peers.collect::<Vec<_>>(),
            })
        });
        rows.collect()
    }
}
