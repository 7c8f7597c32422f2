//! Documents: a cast that keeps its pronouns, belongings and colors from the first sentence to the last.

use super::phrase::{Count, any, capital, clause, noun_phrase, remark};
use super::words::{BEINGS, COLORS, NAME_HEADS, NAME_MIDDLES, NUMBERS, PLACES, THINGS, TOPICS};
use crate::data::draw::Draw;

/// How a character is spoken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pronouns {
    ending: &'static str,
    subject: &'static str,
    object: &'static str,
    possessive: &'static str,
    count: Count,
}

const PRONOUNS: [Pronouns; 3] = [
    Pronouns { ending: "a", subject: "she", object: "her", possessive: "her", count: Count::One },
    Pronouns { ending: "o", subject: "he", object: "him", possessive: "his", count: Count::One },
    Pronouns { ending: "en", subject: "they", object: "them", possessive: "their", count: Count::Many },
];

/// Somebody with a name and something of their own.
#[derive(Debug)]
struct Character {
    name: String,
    pronouns: Pronouns,
    role: &'static str,
    color: &'static str,
    thing: &'static str,
    place: &'static str,
}

impl Character {
    fn draw(draw: &mut Draw) -> Self {
        let pronouns = any(&PRONOUNS, draw);
        let name = format!("{}{}{}", any(&NAME_HEADS, draw), any(&NAME_MIDDLES, draw), pronouns.ending);
        Self {
            name,
            pronouns,
            role: any(&BEINGS, draw).one,
            color: any(&COLORS, draw),
            thing: any(&THINGS, draw).one,
            place: any(&PLACES, draw),
        }
    }

    /// "keeps" after a name or after she and he, "keep" after they.
    fn verb(&self, one: &'static str, many: &'static str) -> &'static str {
        match self.pronouns.count {
            Count::One => one,
            Count::Many => many,
        }
    }
}

/// One document: a title line, paragraphs of a line each, and an empty line at its end.
pub(super) fn document(draw: &mut Draw) -> String {
    let mut cast: Vec<Character> = Vec::new();
    let size = 2 + draw.below(2);
    while cast.len() < size {
        let new = Character::draw(draw);
        // Two of one name, or two things of one kind, would make the story ambiguous.
        if cast.iter().all(|old| old.name != new.name && old.thing != new.thing) {
            cast.push(new);
        }
    }
    let mut text = format!("= {} =\n", any(&TOPICS, draw));
    let introductions: Vec<String> = cast.iter().map(introduction).collect();
    text.push_str(&introductions.join(" "));
    text.push('\n');
    for _ in 0..3 + draw.below(4) {
        let sentences: Vec<String> = (0..3 + draw.below(4)).map(|_| sentence(&cast, draw)).collect();
        text.push_str(&sentences.join(" "));
        text.push('\n');
    }
    let endings: Vec<String> = cast.iter().map(ending).collect();
    text.push_str(&endings.join(" "));
    text.push_str("\n\n");
    text
}

fn introduction(who: &Character) -> String {
    let Character { name, role, color, thing, place, pronouns } = who;
    let article = |word: &str| if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    let owns = who.verb("has", "have");
    format!(
        "{name}, {} {role}, lives {place}. {} {owns} {} {color} {thing}.",
        article(role),
        capital(pronouns.subject),
        article(color)
    )
}

/// The last word on a character: all of it was said at the start.
fn ending(who: &Character) -> String {
    let Character { name, role, color, thing, place, pronouns } = who;
    format!(
        "In the end {name} the {role} still lives {place}, and {} {} {} {color} {thing}.",
        pronouns.subject,
        who.verb("keeps", "keep"),
        pronouns.possessive
    )
}

fn sentence(cast: &[Character], draw: &mut Draw) -> String {
    match draw.below(10) {
        0..3 => capital(&clause(3, draw)) + ".",
        3 => format!("{} {}.", capital(&clause(2, draw)), remark(draw)),
        4 => condition(draw),
        5 => counting(draw),
        6 => pair(draw),
        7 => speech(cast, draw),
        _ => event(cast, draw),
    }
}

fn condition(draw: &mut Draw) -> String {
    if draw.chance(0.5) {
        format!("If {}, then {}.", clause(1, draw), clause(1, draw))
    } else {
        format!("Either {}, or {}.", clause(1, draw), clause(1, draw))
    }
}

/// Numbers that add up: "Of seven boats, two are lost, so five boats are left."
fn counting(draw: &mut Draw) -> String {
    let total = 2 + draw.below(11);
    let lost = 1 + draw.below(total - 1);
    let left = total - lost;
    let thing = any(&THINGS, draw);
    let form = |n: usize| if n == 1 { Count::One } else { Count::Many };
    let be = |n: usize| if n == 1 { "is" } else { "are" };
    format!(
        "Of {} {}, {} {} lost, so {} {} {} left.",
        NUMBERS[total],
        form(total).of(thing),
        NUMBERS[lost],
        be(lost),
        NUMBERS[left],
        form(left).of(thing),
        be(left)
    )
}

/// A subject that comes back as a pronoun of its count.
fn pair(draw: &mut Draw) -> String {
    let (subject, count) = noun_phrase(2, draw);
    let (verb, object) = match count {
        Count::One => ("wants", "it"),
        Count::Many => ("want", "them"),
    };
    let (other, other_count) = noun_phrase(1, draw);
    let helps = match other_count {
        Count::One => "helps",
        Count::Many => "help",
    };
    format!("{} {verb} a rest, and {other} {helps} {object}.", capital(&subject))
}

fn speech(cast: &[Character], draw: &mut Draw) -> String {
    let speaker = &cast[draw.below(cast.len())];
    let about = &cast[draw.below(cast.len())];
    let (words, mood) = match draw.below(3) {
        0 => (format!("Where is the {} {}?", about.color, about.thing), "asks"),
        1 => {
            let heard = capital(&clause(1, draw));
            (format!("I heard somebody say '{heard}.'"), any(&["says", "whispers"], draw))
        }
        _ => (format!("{}!", capital(&clause(1, draw))), any(&["shouts", "calls"], draw)),
    };
    format!("\"{words}\" {mood} {}.", speaker.name)
}

/// A character does something with what is theirs, then again by pronoun.
fn event(cast: &[Character], draw: &mut Draw) -> String {
    let first = draw.below(cast.len());
    let who = &cast[first];
    let other = &cast[(first + 1 + draw.below(cast.len() - 1)) % cast.len()];
    let Pronouns { subject, possessive, .. } = who.pronouns;
    let object = other.pronouns.object;
    match draw.below(4) {
        0 => format!(
            "{} lifts {possessive} {} {}, and {subject} {} it {}.",
            who.name,
            who.color,
            who.thing,
            who.verb("hides", "hide"),
            any(&PLACES, draw)
        ),
        1 => format!(
            "{} meets {} {}, but {subject} {} not tell {object} about the {} {}.",
            who.name,
            other.name,
            other.place,
            who.verb("does", "do"),
            who.color,
            who.thing
        ),
        2 => format!(
            "When {}, {} takes {}'s {} {}, looks at {object}, and gives it back.",
            clause(1, draw),
            who.name,
            other.name,
            other.color,
            other.thing
        ),
        _ => format!(
            "Everybody knows that {} the {} never loses {possessive} {} {}; {subject} {} {}.",
            who.name,
            who.role,
            who.color,
            who.thing,
            who.verb("lives", "live"),
            who.place
        ),
    }
}
