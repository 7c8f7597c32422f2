//! Texts of a description, which may come from file names and datasets: cleaned, escaped, shortened, broken into lines.

use super::font::{Face, width};

/// Most characters of a text that are looked at.
const MAX_CHARS: usize = 1000;

/// `text` in one line, without what cannot be seen, turns the direction of writing or is forbidden in XML.
pub(super) fn clean(text: &str) -> String {
    let visible = text.chars().take(MAX_CHARS).filter_map(|c| match c {
        // Direction marks and overrides, zero-width signs and the two code points that XML forbids.
        '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fffe}'
        | '\u{ffff}' => None,
        c if c.is_control() || c.is_whitespace() => Some(' '),
        c => Some(c),
    });
    let visible: String = visible.collect();
    visible.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// `text` for XML content and attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// `text`, or as much of its beginning as fits into `room` px before an ellipsis.
pub(super) fn shorten(text: &str, face: Face, size: f64, room: f64) -> String {
    if width(text, face, size) <= room {
        return text.to_owned();
    }
    let mut left = room - width("…", face, size);
    let mut kept = String::new();
    for c in text.chars() {
        left -= width(c.encode_utf8(&mut [0; 4]), face, size);
        if left < 0.0 {
            break;
        }
        kept.push(c);
    }
    kept.truncate(kept.trim_end().len());
    kept.push('…');
    kept
}

/// `text` in at most `max_lines` lines of `room` px, broken between words; the last one is shortened.
pub(super) fn wrap(text: &str, face: Face, size: f64, room: f64, max_lines: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut words = text.split(' ').filter(|word| !word.is_empty()).peekable();
    while let Some(word) = words.next() {
        let mut line = word.to_owned();
        if lines.len() + 1 >= max_lines {
            // The last line takes everything, as far as it fits.
            for word in words.by_ref() {
                line.push(' ');
                line.push_str(word);
            }
        }
        while let Some(next) = words.peek() {
            let longer = format!("{line} {next}");
            if width(&longer, face, size) > room {
                break;
            }
            line = longer;
            words.next();
        }
        lines.push(shorten(&line, face, size, room));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_one_harmless_line() {
        let hostile = "a\n<script>alert(\"1\")</script>\u{202e}\u{0}\tb & 'c'\u{ffff}";
        assert_eq!(clean(hostile), "a <script>alert(\"1\")</script> b & 'c'");
        let escaped = escape(&clean(hostile));
        assert_eq!(escaped, "a &lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; b &amp; &#39;c&#39;");
        assert_eq!(clean(&"x".repeat(1_000_000)).len(), MAX_CHARS);
    }

    #[test]
    fn long_text_is_shortened_to_its_room() {
        let long = "loss of a run with a very long name ".repeat(20);
        let short = shorten(&long, Face::Regular, 12.0, 150.0);
        assert!(short.ends_with('…') && short.starts_with("loss of a run"), "{short}");
        assert!(width(&short, Face::Regular, 12.0) <= 150.0);
        assert_eq!(shorten("Loss", Face::Regular, 12.0, 150.0), "Loss");
        assert_eq!(shorten("Loss", Face::Regular, 12.0, 0.0), "…");
    }

    #[test]
    fn lines_break_between_words() {
        let lines = wrap("one two three four five six", Face::Regular, 12.0, 60.0, 2);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], "one two");
        assert!(lines[1].ends_with('…'));
        assert!(lines.iter().all(|line| width(line, Face::Regular, 12.0) <= 60.0));
        assert!(wrap("", Face::Regular, 12.0, 60.0, 2).is_empty());
    }
}
