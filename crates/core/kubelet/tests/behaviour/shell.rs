//! As much of a shell as the recorded scenarios' commands need, on a virtual clock.

use std::collections::BTreeMap;

/// Files by path, with their number of lines.
pub(crate) type Files = BTreeMap<String, usize>;

/// What a process does next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Next {
    Sleep(u64),
    Exit(i32),
    OutOfMemory,
    Forever,
}

/// What a signal does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Trap {
    /// The first process of a namespace has no default action.
    Nothing,
    Run(Vec<String>),
}

#[derive(Debug, Clone)]
pub(crate) struct Process {
    statements: Vec<String>,
    pub(crate) trap: Trap,
    last: i32,
    pub(crate) output: String,
}

/// Splits at `;` outside quotes and braces.
fn split(script: &str) -> Vec<String> {
    let (mut parts, mut part, mut depth, mut quote) = (Vec::new(), String::new(), 0, None);
    for c in script.chars() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(q)) if c == q => quote = None,
            ('{' | '(', None) => depth += 1,
            ('}' | ')', None) => depth -= 1,
            _ => {}
        }
        if c == ';' && depth == 0 && quote.is_none() && !part.trim_start().starts_with("while") {
            parts.push(std::mem::take(&mut part).trim().to_owned());
        } else {
            part.push(c);
        }
    }
    parts.push(part.trim().to_owned());
    parts.retain(|part| !part.is_empty());
    parts
}

impl Process {
    /// `command` and `args` as in a container; without both an image's own server.
    pub(crate) fn new(words: &[String]) -> Self {
        let script = match words {
            [] => "server".to_owned(),
            [sh, c, script] if sh == "sh" && c == "-c" => script.clone(),
            words => words.join(" "),
        };
        Self { statements: split(&script), trap: Trap::Nothing, last: 0, output: String::new() }
    }

    /// Runs up to the next thing that takes time.
    pub(crate) fn run(&mut self, files: &mut Disk<'_>) -> Next {
        while !self.statements.is_empty() {
            let statement = self.statements.remove(0);
            if let Some(next) = self.statement(&statement, files) {
                return next;
            }
        }
        Next::Exit(self.last)
    }

    /// Takes a signal's trap as what to do now.
    pub(crate) fn interrupt(&mut self) -> bool {
        let Trap::Run(statements) = &self.trap else { return false };
        self.statements.clone_from(statements);
        true
    }

    fn statement(&mut self, statement: &str, files: &mut Disk<'_>) -> Option<Next> {
        for (operator, goes_on) in [(" || ", false), (" && ", true)] {
            if let Some((first, then)) = statement.split_once(operator)
                && !statement.starts_with("trap")
            {
                if let Some(next) = self.statement(first, files) {
                    return Some(next);
                }
                if (self.last == 0) == goes_on {
                    let then = then.trim_start_matches('{').trim_end_matches('}');
                    self.statements.splice(0..0, split(then));
                } else {
                    self.last = 0;
                }
                return None;
            }
        }
        self.simple(statement, files)
    }

    fn simple(&mut self, statement: &str, files: &mut Disk<'_>) -> Option<Next> {
        let statement = statement.trim().trim_start_matches("exec ");
        let words: Vec<&str> = statement.split_whitespace().collect();
        self.last = 0;
        match words.as_slice() {
            ["sleep", "3600", "&", "wait"] | ["server"] => return Some(Next::Forever),
            ["sleep", seconds, ..] => return Some(Next::Sleep(seconds.parse::<u64>().unwrap_or(3600) * 1000)),
            ["exit", code] => return Some(Next::Exit(code.parse().unwrap_or(1))),
            ["tail", "/dev/zero"] => return Some(Next::OutOfMemory),
            ["while", ":;", ..] => return Some(Next::Forever),
            ["trap", .., "TERM"] => {
                let what = statement.trim_start_matches("trap").trim_end_matches("TERM").trim().trim_matches('"');
                self.trap = if what.is_empty() { Trap::Nothing } else { Trap::Run(split(what)) };
            }
            ["touch", paths @ ..] => paths.iter().for_each(|path| files.touch(path)),
            ["rm", path] => drop(files.of(path).remove(*path)),
            ["echo", .., ">>", path] => files.append(path),
            ["echo", .., ">", path] => files.touch(path),
            ["echo", said @ ..] => {
                self.output.push_str(&said.join(" "));
                self.output.push('\n');
            }
            ["[", "-e", path, "]"] | ["test", "-e", path] => self.last = i32::from(!files.is_there(path)),
            ["[", "$(wc", "-l", "<", path, operator, number, "]"] => {
                let (lines, number) = (files.lines(path.trim_end_matches(')')), number.parse().unwrap_or(0));
                self.last = i32::from(if *operator == "-gt" { lines <= number } else { lines < number });
            }
            ["cat", path] if !path.starts_with("/proc") && !path.starts_with("/etc") && !files.is_there(path) => {
                self.output.push_str(&format!("cat: can't open '{path}': No such file or directory\n"));
                self.last = 1;
            }
            ["false"] => self.last = 1,
            _ => {}
        }
        None
    }
}

/// What a process sees: its own root and the Pod's volumes.
pub(crate) struct Disk<'a> {
    pub(crate) own: &'a mut Files,
    pub(crate) volumes: &'a mut Files,
    /// Where volumes are mounted.
    pub(crate) mounts: Vec<String>,
}

impl Disk<'_> {
    fn of(&mut self, path: &str) -> &mut Files {
        let mounted = self.mounts.iter().any(|mount| path.starts_with(&format!("{mount}/")));
        if mounted { self.volumes } else { self.own }
    }

    fn touch(&mut self, path: &str) {
        self.of(path).entry(path.to_owned()).or_insert(0);
    }

    fn append(&mut self, path: &str) {
        *self.of(path).entry(path.to_owned()).or_insert(0) += 1;
    }

    fn is_there(&mut self, path: &str) -> bool {
        self.of(path).contains_key(path)
    }

    fn lines(&mut self, path: &str) -> usize {
        self.of(path).get(path).copied().unwrap_or_default()
    }
}
