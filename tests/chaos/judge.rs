//! What is wrong with the records of a topic, by what was committed. Knows no server.

use std::collections::HashMap;

use crate::reference::{Expected, Name, Reference};
use crate::rows::TABLES;

/// What can be wrong with a record.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Wrong {
    /// Committed, and not there.
    Lost,
    /// There more than once.
    Repeated,
    /// For the first time there, behind one of its partition that was committed later.
    Disordered,
    /// The last record of its key, and not the key's last change.
    Stale,
    /// Another key, value or operation than was committed, or another table's.
    Altered,
    /// Not committed.
    Foreign,
    /// Its key has been in another partition.
    Strayed,
}

/// A record of a topic.
#[derive(Clone, Debug)]
pub struct Stored {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    pub key: Option<String>,
    pub value: Option<String>,
    /// The header `op`.
    pub op: String,
    /// The header `id`.
    pub id: String,
}

/// Something wrong.
#[derive(Debug)]
pub struct Finding {
    /// What.
    pub wrong: Wrong,
    /// In words.
    pub text: String,
    /// Where it is seen: the record first, then what it contradicts.
    pub places: Vec<Place>,
}

/// Where a record is: the place of its table, partition, offset.
pub type Place = (usize, i32, i64);

/// See the module. Takes the records of each partition in their order.
pub struct Judge<'a> {
    reference: &'a Reference,
    /// Where each of the reference was found first.
    found: Vec<Option<Place>>,
    /// The last record of each key, by the place of its table and its row's number.
    last: HashMap<(u8, u64), (usize, Place)>,
    /// The greatest name of each table's partitions.
    highest: HashMap<(usize, i32), Name>,
    source: Option<String>,
}

impl<'a> Judge<'a> {
    /// Has seen nothing.
    pub fn new(reference: &'a Reference) -> Self {
        let found = vec![None; reference.records.len()];
        Self { reference, found, last: HashMap::new(), highest: HashMap::new(), source: None }
    }

    /// The next record of a table's topic: what is wrong with it.
    pub fn record(&mut self, at: usize, record: &Stored) -> Vec<Finding> {
        let here = (at, record.partition, record.offset);
        let mut findings = Vec::new();
        let mut find = |wrong, text: String, other: Option<Place>| {
            let text = format!("{} {text}", record.id);
            let places = [here].into_iter().chain(other).collect();
            findings.push(Finding { wrong, text, places });
        };
        let Some(place) = self.named(&record.id).and_then(|name| self.reference.find(name)) else {
            find(Wrong::Foreign, format!("{} {:?}", record.op, record.key), None);
            return findings;
        };
        let expected = self.reference.records[place];
        if !same(at, record, &expected) {
            let text = format!("{:?} {:?} and not {expected}", record.key, record.value);
            find(Wrong::Altered, text, None);
        }
        let before = self.last.insert((expected.table, expected.n), (place, here));
        if let Some((_, there)) = before
            && there.1 != here.1
        {
            find(Wrong::Strayed, format!("key {:?}", record.key), Some(there));
        }
        if let Some(first) = self.found[place] {
            find(Wrong::Repeated, String::new(), Some(first));
            return findings;
        }
        self.found[place] = Some(here);
        let highest = self.highest.entry((at, record.partition)).or_insert(expected.name);
        if expected.name < *highest {
            find(Wrong::Disordered, format!("behind {highest}"), None);
        } else {
            *highest = expected.name;
        }
        findings
    }

    /// All records were there: what is not, and which keys were left with an old one.
    pub fn end(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut true_last = HashMap::new();
        for (place, record) in self.reference.records.iter().enumerate() {
            true_last.insert((record.table, record.n), place);
            if self.found[place].is_none() {
                let text = format!("{} {record}", TABLES[usize::from(record.table)].topic());
                findings.push(Finding { wrong: Wrong::Lost, text, places: Vec::new() });
            }
        }
        for (row, place) in true_last {
            if let Some(&(last, there)) = self.last.get(&row)
                && last != place
            {
                let [is, should] = [last, place].map(|place| self.reference.records[place]);
                let places = [there].into_iter().chain(self.found[place]).collect();
                let text = format!("{is} is last, and not {should}");
                findings.push(Finding { wrong: Wrong::Stale, text, places });
            }
        }
        findings
    }

    /// `source-timeline-commit-index[.part]`: the source is always the same, the timeline too.
    fn named(&mut self, id: &str) -> Option<Name> {
        let (id, part) = id.split_once('.').unwrap_or((id, "0"));
        let words: Vec<&str> = id.split('-').collect();
        let [source, "00000001", commit, index] = words.as_slice() else { return None };
        if self.source.get_or_insert_with(|| (*source).to_owned()) != source {
            return None;
        }
        Some(Name {
            commit: u64::from_str_radix(commit, 16).ok()?,
            index: u32::from_str_radix(index, 16).ok()?,
            part: part.parse().ok()?,
        })
    }
}

fn same(at: usize, record: &Stored, expected: &Expected) -> bool {
    let table = &TABLES[at];
    usize::from(expected.table) == at
        && record.op.as_bytes() == [expected.op]
        && record.key.as_ref() == Some(&table.key(expected.n))
        && record.value.as_ref() == Some(&table.value(expected.n, expected.seq))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three changes of table `b`: row 1, row 2, row 1 again.
    fn reference() -> Reference {
        let record = |index, n, op| {
            let name = Name { commit: 0x10, index, part: 0 };
            Expected { name, table: 1, op, n, seq: Some(u64::from(index) + 1) }
        };
        let mut reference = Reference::default();
        reference.records.extend([record(0, 1, b'c'), record(1, 2, b'c'), record(2, 1, b'u')]);
        reference
    }

    /// As they should be.
    fn stored(reference: &Reference) -> Vec<Stored> {
        let record = |expected: &Expected| Stored {
            partition: 0,
            offset: i64::from(expected.name.index),
            timestamp: 0,
            key: Some(TABLES[1].key(expected.n)),
            value: Some(TABLES[1].value(expected.n, expected.seq)),
            op: char::from(expected.op).to_string(),
            id: format!("a-00000001-0000000000000010-{:08x}", expected.name.index),
        };
        reference.records.iter().map(record).collect()
    }

    /// What is said of these records, in the order of [`Wrong`].
    fn judged(records: &[Stored]) -> Vec<Wrong> {
        let reference = reference();
        let mut judge = Judge::new(&reference);
        let each = records.iter().flat_map(|record| judge.record(1, record));
        let mut wrong: Vec<Wrong> = each.map(|finding| finding.wrong).collect();
        wrong.extend(judge.end().into_iter().map(|finding| finding.wrong));
        wrong.sort_unstable();
        wrong
    }

    #[test]
    fn the_judge_finds_nothing_where_nothing_is_wrong() {
        assert_eq!(judged(&stored(&reference())), []);
    }

    #[test]
    fn the_judge_finds_what_is_lost_repeated_or_in_another_order() {
        let good = stored(&reference());
        let [a, b, c] = [0, 1, 2].map(|at| good[at].clone());
        assert_eq!(judged(&[a.clone(), c.clone()]), [Wrong::Lost]);
        assert_eq!(judged(&[a.clone(), b.clone()]), [Wrong::Lost, Wrong::Stale]);
        let again = [a.clone(), b.clone(), c.clone(), b.clone()];
        assert_eq!(judged(&again), [Wrong::Repeated]);
        let late = [a.clone(), b.clone(), c.clone(), a.clone()];
        assert_eq!(judged(&late), [Wrong::Repeated, Wrong::Stale]);
        assert_eq!(judged(&[a, c, b]), [Wrong::Disordered]);
    }

    #[test]
    fn the_judge_finds_what_was_never_written_like_this() {
        let good = stored(&reference());
        let with = |change: fn(&mut Stored)| {
            let mut records = good.clone();
            change(&mut records[2]);
            judged(&records)
        };
        assert_eq!(with(|it| it.value = None), [Wrong::Altered]);
        assert_eq!(with(|it| it.key = Some("2".to_owned())), [Wrong::Altered]);
        assert_eq!(with(|it| it.op = "c".to_owned()), [Wrong::Altered]);
        assert_eq!(with(|it| it.partition = 1), [Wrong::Strayed]);
        let foreign = [Wrong::Lost, Wrong::Stale, Wrong::Foreign];
        assert_eq!(with(|it| it.id.replace_range(0..1, "b")), foreign);
        assert_eq!(with(|it| it.id += ".2"), foreign);
    }
}
