//! Are two boots the same, byte for byte? And if not, where do they part?

use super::machine::Output;

/// Bytes shown on each side of the first one that differs.
const AROUND: usize = 40;

/// None if everything is equal.
pub fn difference(first: &Output, second: &Output) -> Option<String> {
    let ports = [
        ("answer", &first.answer, &second.answer),
        ("console", &first.console, &second.console),
    ];
    ports.into_iter().find_map(|(name, a, b)| {
        let at = parting(a, b)?;
        let (a, b) = (excerpt(a, at), excerpt(b, at));
        Some(format!("{name}, byte {at}: '{a}' and '{b}'"))
    })
}

/// Index of the first byte that differs or that only one has.
fn parting(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b {
        return None;
    }
    let common = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    Some(common)
}

fn excerpt(bytes: &[u8], at: usize) -> String {
    let end = bytes.len().min(at + AROUND);
    String::from_utf8_lossy(&bytes[at.saturating_sub(AROUND)..end])
        .escape_debug()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(console: &str, answer: &str) -> Output {
        Output {
            console: console.into(),
            answer: answer.into(),
        }
    }

    #[test]
    fn equal_outputs_do_not_differ() {
        let same = output("boot\n", "{\"ops\":17}\nexit 0\n");
        assert_eq!(difference(&same, &same.clone()), None);
    }

    #[test]
    fn a_single_digit_a_missing_end_and_the_console_are_noticed() {
        let one = output("boot\n", "{\"ops\":17}\nexit 0\n");
        let digit = difference(&one, &output("boot\n", "{\"ops\":18}\nexit 0\n"));
        assert_eq!(
            digit.as_deref(),
            Some(
                "answer, byte 8: '{\\\"ops\\\":17}\\nexit 0\\n' and '{\\\"ops\\\":18}\\nexit 0\\n'"
            )
        );
        let end = difference(&one, &output("boot\n", "{\"ops\":17}\nexit "));
        assert!(end.is_some_and(|it| it.starts_with("answer, byte 16")));
        let console = difference(&one, &output("boot!\n", "{\"ops\":17}\nexit 0\n"));
        assert!(console.is_some_and(|it| it.starts_with("console, byte 4")));
    }

    #[test]
    fn excerpts_stay_within_what_there_is() {
        let long = "x".repeat(1000);
        let a = output("", &format!("{long}a{long}"));
        let b = output("", &format!("{long}b{long}"));
        let text = difference(&a, &b).expect("a difference");
        assert!(text.len() < 4 * AROUND + 40, "{text}");
    }
}
