//! Which names are like one that was meant.

/// `names`, those most like `meant` first; of those that are as far, in the order of the alphabet.
pub(super) fn by_nearness<'a>(meant: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut ranked: Vec<(usize, &str)> = names.into_iter().map(|name| (distance(meant, name), name)).collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, name)| name).collect()
}

/// Insertions, deletions and exchanges of letters that lead from one word to the other (Levenshtein 1966); upper and lower
/// case are alike.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.to_lowercase().chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        let mut left = index + 1;
        next.push(left);
        for ((other, diagonal), above) in to.iter().zip(&row).zip(row.iter().skip(1)) {
            let exchanged = diagonal + usize::from(*other != letter);
            left = exchanged.min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_textbook() {
        for (from, to, expected) in
            [("kitten", "sitting", 3), ("topic", "topic", 0), ("", "abc", 3), ("abc", "", 3), ("Topic", "topics", 1)]
        {
            assert_eq!(distance(from, to), expected, "{from} {to}");
        }
    }

    #[test]
    fn near_names_come_first() {
        assert_eq!(by_nearness("topik", ["magika", "identity", "topic"]), ["topic", "magika", "identity"]);
    }
}
