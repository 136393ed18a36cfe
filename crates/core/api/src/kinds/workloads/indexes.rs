//! Lists of indexes of a Job's Pods: `0,2-4` (upstream `validateIndexesFormat`).

use schema::field::go_quote;

/// How many indexes a list has.
///
/// # Errors
/// What is wrong with it, in upstream's words.
pub(super) fn count(list: &str, completions: i64) -> Result<i64, String> {
    if list.is_empty() {
        return Ok(0);
    }
    let mut total = 0;
    let mut last: Option<i64> = None;
    for part in list.split(',') {
        let (from, to) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= from) {
            return Err(format!("non-increasing order, previous: {last}, current: {from}"));
        }
        total += to - from + 1;
        last = Some(to);
    }
    Ok(total)
}

fn interval(part: &str, completions: i64) -> Result<(i64, i64), String> {
    let index = |text: &str| match text.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {}", go_quote(text))),
        Ok(index) if index >= completions => Err(format!("too large index: {}", go_quote(text))),
        Ok(index) => Ok(index),
    };
    match part.split('-').collect::<Vec<_>>()[..] {
        [from, to] => {
            let (from, to) = (index(from)?, index(to)?);
            if from >= to {
                return Err(format!("non-increasing order, previous: {from}, current: {to}"));
            }
            Ok((from, to))
        }
        [one] => index(one).map(|one| (one, one)),
        _ => Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
            go_quote(part)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn lists() {
        for (list, wanted) in [
            ("", Ok(0)),
            ("0", Ok(1)),
            ("0,2-4", Ok(4)),
            ("5", Err("too large index: \"5\"")),
            ("2,1", Err("non-increasing order, previous: 2, current: 1")),
            ("3-1", Err("non-increasing order, previous: 3, current: 1")),
            ("a", Err("cannot convert string to integer for index: \"a\"")),
            ("", Ok(0)),
        ] {
            assert_eq!(count(list, 5), wanted.map_err(str::to_owned), "{list}");
        }
    }
}
