//! The unified difference of two texts as upstream's messages show it (`util/diff` on go-difflib, which is Python's
//! `difflib`: Ratcliff and Obershelp's matching, with lines that are too frequent left out).

use std::collections::BTreeMap;
use std::fmt::Write;

const CONTEXT_LINES: usize = 3;

/// A run of equal lines.
#[derive(Debug, Clone, Copy)]
struct Match {
    a: usize,
    b: usize,
    size: usize,
}

/// A step from `a` to `b`: lines `a.0..a.1` become `b.0..b.1`.
#[derive(Debug, Clone, Copy)]
struct Step {
    equal: bool,
    a: (usize, usize),
    b: (usize, usize),
}

/// Hunks with three lines of context, without file names; empty if nothing differs.
pub fn unified(a: &str, b: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (a.split('\n').collect(), b.split('\n').collect());
    let mut out = String::new();
    for group in groups(&steps(&a, &b)) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let _ = writeln!(out, "@@ -{} +{} @@", range(first.a.0, last.a.1), range(first.b.0, last.b.1));
        for step in &group {
            let (minus, plus) = if step.equal { (' ', None) } else { ('-', Some('+')) };
            for line in &a[step.a.0..step.a.1] {
                let _ = writeln!(out, "{minus}{line}");
            }
            for line in plus.iter().flat_map(|_| &b[step.b.0..step.b.1]) {
                let _ = writeln!(out, "+{line}");
            }
        }
    }
    out
}

fn range(start: usize, stop: usize) -> String {
    match stop - start {
        1 => format!("{}", start + 1),
        0 => format!("{start},0"),
        length => format!("{},{length}", start + 1),
    }
}

/// Where each line stands in `b`; lines that make up more than a hundredth of a long text say nothing.
fn positions<'a>(b: &[&'a str]) -> BTreeMap<&'a str, Vec<usize>> {
    let mut positions: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, line) in b.iter().enumerate() {
        positions.entry(line).or_default().push(i);
    }
    if b.len() >= 200 {
        positions.retain(|_, at| at.len() <= b.len() / 100 + 1);
    }
    positions
}

type Window = (usize, usize, usize, usize);

fn longest(a: &[&str], b: &[&str], positions: &BTreeMap<&str, Vec<usize>>, (alo, ahi, blo, bhi): Window) -> Match {
    let mut best = Match { a: alo, b: blo, size: 0 };
    let mut lengths: BTreeMap<usize, usize> = BTreeMap::new();
    for (i, line) in a.iter().enumerate().take(ahi).skip(alo) {
        let mut next = BTreeMap::new();
        for &j in positions.get(line).into_iter().flatten().filter(|j| (blo..bhi).contains(*j)) {
            let size = j.checked_sub(1).and_then(|before| lengths.get(&before)).unwrap_or(&0) + 1;
            next.insert(j, size);
            if size > best.size {
                best = Match { a: i + 1 - size, b: j + 1 - size, size };
            }
        }
        lengths = next;
    }
    while best.a > alo && best.b > blo && a[best.a - 1] == b[best.b - 1] {
        best = Match { a: best.a - 1, b: best.b - 1, size: best.size + 1 };
    }
    while best.a + best.size < ahi && best.b + best.size < bhi && a[best.a + best.size] == b[best.b + best.size] {
        best.size += 1;
    }
    best
}

fn matches(a: &[&str], b: &[&str]) -> Vec<Match> {
    let positions = positions(b);
    let mut found = Vec::new();
    let mut windows: Vec<Window> = vec![(0, a.len(), 0, b.len())];
    while let Some(window) = windows.pop() {
        let (alo, ahi, blo, bhi) = window;
        let best = longest(a, b, &positions, window);
        if best.size == 0 {
            continue;
        }
        found.push(best);
        if alo < best.a && blo < best.b {
            windows.push((alo, best.a, blo, best.b));
        }
        let (aend, bend) = (best.a + best.size, best.b + best.size);
        if aend < ahi && bend < bhi {
            windows.push((aend, ahi, bend, bhi));
        }
    }
    found.sort_by_key(|m| m.a);
    let mut joined: Vec<Match> = Vec::new();
    for next in found {
        match joined.last_mut() {
            Some(last) if last.a + last.size == next.a && last.b + last.size == next.b => last.size += next.size,
            _ => joined.push(next),
        }
    }
    joined.push(Match { a: a.len(), b: b.len(), size: 0 });
    joined
}

fn steps(a: &[&str], b: &[&str]) -> Vec<Step> {
    let (mut i, mut j) = (0, 0);
    let mut steps = Vec::new();
    for Match { a, b, size } in matches(a, b) {
        if i < a || j < b {
            steps.push(Step { equal: false, a: (i, a), b: (j, b) });
        }
        (i, j) = (a + size, b + size);
        if size > 0 {
            steps.push(Step { equal: true, a: (a, i), b: (b, j) });
        }
    }
    steps
}

/// Changes with their context; long runs of equal lines part them.
fn groups(steps: &[Step]) -> Vec<Vec<Step>> {
    let n = CONTEXT_LINES;
    let head = |s: Step| Step { a: (s.a.0, s.a.1.min(s.a.0 + n)), b: (s.b.0, s.b.1.min(s.b.0 + n)), ..s };
    let tail = |s: Step| Step {
        a: (s.a.0.max(s.a.1.saturating_sub(n)), s.a.1),
        b: (s.b.0.max(s.b.1.saturating_sub(n)), s.b.1),
        ..s
    };
    let mut steps = steps.to_vec();
    if let Some(first) = steps.first_mut().filter(|s| s.equal) {
        *first = tail(*first);
    }
    if let Some(last) = steps.last_mut().filter(|s| s.equal) {
        *last = head(*last);
    }
    let mut groups = Vec::new();
    let mut group = Vec::new();
    for step in steps {
        if step.equal && step.a.1 - step.a.0 > 2 * n {
            group.push(head(step));
            groups.push(std::mem::take(&mut group));
            group.push(tail(step));
        } else {
            group.push(step);
        }
    }
    groups.push(group);
    groups.retain(|g| g.iter().any(|s| !s.equal));
    groups
}

#[cfg(test)]
mod tests {
    use super::unified;

    #[test]
    fn hunks() {
        assert_eq!(unified("a\nb", "a\nb"), "");
        assert_eq!(unified("a\nb\nc", "a\nx\nc"), "@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n");
        assert_eq!(unified("a", "a\nb"), "@@ -1 +1,2 @@\n a\n+b\n");
        let a: Vec<String> = (0..20).map(|i| i.to_string()).collect();
        let mut b = a.clone();
        b[2] = "x".to_owned();
        b.remove(15);
        let wanted =
            "@@ -1,6 +1,6 @@\n 0\n 1\n-2\n+x\n 3\n 4\n 5\n@@ -13,7 +13,6 @@\n 12\n 13\n 14\n-15\n 16\n 17\n 18\n";
        assert_eq!(unified(&a.join("\n"), &b.join("\n")), wanted);
    }
}
