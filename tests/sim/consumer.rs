//! A consumer as our manual has it: it gets only what is committed, groups rows by the commit that their
//! `id` names, and applies a group once it has every row of it, in the order of commits.
//!
//! Markers get into partitions one by one, so that it may see a later transaction before an earlier one: it
//! is told which are committed, and keeps one until it has applied all before it.

use std::collections::{BTreeMap, BTreeSet};

/// A transaction of PostgreSQL's: its timeline and commit LSN.
pub type Group = (u32, u64);

#[derive(Default)]
pub struct Consumer {
    /// Rows of those that are not applied.
    open: BTreeMap<Group, BTreeSet<u32>>,
    /// Those that are committed, and of which something is still to come.
    waiting: BTreeSet<Group>,
    applied: BTreeSet<Group>,
}

impl Consumer {
    /// Something of it is committed.
    pub fn wait_for(&mut self, group: Group) {
        if !self.applied.contains(&group) {
            self.waiting.insert(group);
        }
    }

    /// A row is here.
    pub fn take(&mut self, group: Group, index: u32) {
        self.open.entry(group).or_default().insert(index);
    }

    /// Applies what is whole, in order; `size` is that of a group, and `gone` whether the rest of one will
    /// never come. Gives one that comes after a later one.
    pub fn apply(
        &mut self,
        size: impl Fn(&Group) -> usize,
        gone: impl Fn(&Group) -> bool,
    ) -> Option<Group> {
        let mut late = None;
        while let Some(group) = self.waiting.iter().find(|group| !gone(group)).copied() {
            let whole = self.open.get(&group).is_some_and(|rows| rows.len() >= size(&group));
            if !whole {
                break;
            }
            if self.applied.last().is_some_and(|last| *last > group) {
                late.get_or_insert(group);
            }
            self.open.remove(&group);
            self.waiting.remove(&group);
            self.applied.insert(group);
        }
        late
    }

    pub fn applied(&self, group: &Group) -> bool {
        self.applied.contains(group)
    }

    /// Those of which it has a part.
    pub fn kept(&self) -> impl Iterator<Item = &Group> {
        self.open.keys()
    }
}
