//! Names as a configuration has them: of tables, quoted or not, and of topics.

/// The template with its braces filled, in one pass, as a schema may be called `{table}`. `None`:
/// it has a brace that means nothing.
pub(super) fn fill(template: &str, namespace: &str, name: &str) -> Option<String> {
    let mut topic = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        topic.push_str(before);
        if let Some(after) = from.strip_prefix("{schema}") {
            topic.push_str(namespace);
            rest = after;
        } else {
            rest = from.strip_prefix("{table}")?;
            topic.push_str(name);
        }
    }
    topic.push_str(rest);
    Some(topic)
}

/// `"schema"."table"` taken apart; either part may also stand without quotes.
pub(super) fn unquote(name: &str) -> Option<(String, String)> {
    let (namespace, rest) = part(name)?;
    let (table, rest) = part(rest.strip_prefix('.')?)?;
    rest.is_empty().then_some((namespace, table))
}

/// One identifier from the front, and what follows it.
fn part(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let (plain, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
        return (!plain.is_empty() && !plain.contains('"')).then(|| (plain.to_owned(), rest));
    };
    let mut name = String::new();
    loop {
        let (before, after) = rest.split_once('"')?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"'); // doubled: it stands for itself
                rest = more;
            }
            None => return (!name.is_empty()).then_some((name, after)),
        }
    }
}

/// Kafka's rule for the name of a topic (`org.apache.kafka.common.internals.Topic`).
///
/// # Errors
/// The part of the rule that `name` breaks, to follow the name in a sentence.
pub fn topic_name(name: &str) -> Result<(), &'static str> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() {
        Err("is empty")
    } else if name == "." || name == ".." {
        Err("is a name that Kafka keeps for itself")
    } else if name.len() > MAX_TOPIC {
        Err("is longer than the 249 characters that Kafka takes")
    } else if !name.bytes().all(legal) {
        Err("has characters other than the letters, digits, '.', '_' and '-' that Kafka takes")
    } else {
        Ok(())
    }
}

/// `Topic.MAX_NAME_LENGTH`: with a partition's number it is still a file name.
const MAX_TOPIC: usize = 249;
