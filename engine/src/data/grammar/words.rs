//! The vocabulary.

/// A word that is one or many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub one: &'static str,
    pub many: &'static str,
}

const fn w(one: &'static str, many: &'static str) -> Word {
    Word { one, many }
}

/// Who acts.
pub(super) const BEINGS: [Word; 28] = [
    w("fox", "foxes"),
    w("farmer", "farmers"),
    w("goose", "geese"),
    w("child", "children"),
    w("miller", "millers"),
    w("mouse", "mice"),
    w("sailor", "sailors"),
    w("wolf", "wolves"),
    w("baker", "bakers"),
    w("crow", "crows"),
    w("guard", "guards"),
    w("hen", "hens"),
    w("thief", "thieves"),
    w("weaver", "weavers"),
    w("goat", "goats"),
    w("singer", "singers"),
    w("owl", "owls"),
    w("smith", "smiths"),
    w("dog", "dogs"),
    w("bishop", "bishops"),
    w("horse", "horses"),
    w("painter", "painters"),
    w("heron", "herons"),
    w("queen", "queens"),
    w("fish", "fish"),
    w("pilot", "pilots"),
    w("stranger", "strangers"),
    w("clerk", "clerks"),
];

/// What can be owned or counted.
pub(super) const THINGS: [Word; 20] = [
    w("lantern", "lanterns"),
    w("key", "keys"),
    w("boat", "boats"),
    w("letter", "letters"),
    w("cup", "cups"),
    w("knife", "knives"),
    w("drum", "drums"),
    w("basket", "baskets"),
    w("coin", "coins"),
    w("mirror", "mirrors"),
    w("ring", "rings"),
    w("box", "boxes"),
    w("bell", "bells"),
    w("loaf", "loaves"),
    w("map", "maps"),
    w("scarf", "scarves"),
    w("candle", "candles"),
    w("book", "books"),
    w("rope", "ropes"),
    w("stone", "stones"),
];

/// Where.
pub(super) const PLACES: [&str; 16] = [
    "near the mill",
    "behind the church",
    "on the hill",
    "by the river",
    "at the harbor",
    "in the garden",
    "under the bridge",
    "across the valley",
    "beside the old wall",
    "in the market",
    "at the edge of the forest",
    "below the tower",
    "on the frozen lake",
    "in the kitchen",
    "along the road",
    "inside the barn",
];

/// What somebody does alone, or they do: sleeps, sleep.
pub(super) const ACTS: [Word; 18] = [
    w("sleeps", "sleep"),
    w("waits", "wait"),
    w("sings", "sing"),
    w("dances", "dance"),
    w("runs", "run"),
    w("listens", "listen"),
    w("hides", "hide"),
    w("laughs", "laugh"),
    w("works", "work"),
    w("dreams", "dream"),
    w("stumbles", "stumble"),
    w("whispers", "whisper"),
    w("is tired", "are tired"),
    w("has gone", "have gone"),
    w("is late", "are late"),
    w("does not answer", "do not answer"),
    w("was here before", "were here before"),
    w("goes home", "go home"),
];

/// What somebody does to somebody.
pub(super) const DEEDS: [Word; 18] = [
    w("watches", "watch"),
    w("follows", "follow"),
    w("fears", "fear"),
    w("knows", "know"),
    w("calls", "call"),
    w("helps", "help"),
    w("chases", "chase"),
    w("feeds", "feed"),
    w("trusts", "trust"),
    w("hears", "hear"),
    w("remembers", "remember"),
    w("has seen", "have seen"),
    w("is looking for", "are looking for"),
    w("does not like", "do not like"),
    w("pays", "pay"),
    w("teases", "tease"),
    w("admires", "admire"),
    w("was hiding from", "were hiding from"),
];

/// How somebody is.
pub(super) const MANNERS: [&str; 18] = [
    "old", "quiet", "young", "hungry", "clever", "tall", "proud", "lazy", "honest", "lonely", "brave", "small",
    "angry", "gentle", "lame", "merry", "pale", "strange",
];

/// What something looks like.
pub(super) const COLORS: [&str; 12] =
    ["red", "green", "blue", "black", "white", "yellow", "grey", "golden", "silver", "brown", "purple", "orange"];

/// Small numbers.
pub(super) const NUMBERS: [&str; 13] =
    ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];

/// Where a document is told.
pub(super) const TOPICS: [&str; 12] = [
    "The Winter Market",
    "A Night at the Mill",
    "The Missing Letter",
    "Nine Bells",
    "The Ferry",
    "What the Owl Saw",
    "Bread and Salt",
    "The Long Wall",
    "Two Roads",
    "The Painted Room",
    "Low Water",
    "The Last Lantern",
];

/// Beginnings of names.
pub(super) const NAME_HEADS: [&str; 24] = [
    "Mar", "Tol", "Bren", "Kas", "Lir", "Vel", "Don", "Sil", "Per", "Jor", "Nel", "Ron", "Fal", "Gri", "Hal", "Ism",
    "Ott", "Quil", "Sor", "Tam", "Ul", "Wen", "Yar", "Zed",
];

/// Middles of names; the endings say the pronoun.
pub(super) const NAME_MIDDLES: [&str; 8] = ["", "d", "in", "ol", "et", "is", "av", "um"];
