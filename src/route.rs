//! Which topic a table's rows go to, and which of its columns are the key.
//!
//! Pure, and compiled once a relation: [`Routes::compile`] is asked when a relation is first seen
//! or has changed, never once a row. A name that Kafka would not take is an error, as two tables
//! whose names differ in such a character alone would else share a topic in silence.

mod error;
mod name;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use self::name::{fill, unquote};
pub use self::{error::Error, name::topic_name};
use crate::schema::{Relation, ReplicaIdentity};

/// What `[tables]` says of one table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Table {
    /// Its topic.
    pub topic: Option<String>,
    /// Its key columns, by name, in this order; `None`: by the catalog.
    pub key: Option<Vec<String>>,
}

/// Where a table goes that `[tables]` does not list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unlisted {
    /// To the topic that the template gives.
    Route,
    /// Nowhere; counted.
    Skip,
    /// The process halts.
    Refuse,
}

/// Where a truncate goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Truncate {
    /// To every partition of the table's topic.
    Table,
    /// Nowhere; counted.
    Skip,
    /// To this topic.
    Topic(String),
}

/// All routing.
#[derive(Clone, Debug)]
pub struct Options {
    /// By `schema.table`.
    pub tables: BTreeMap<String, Table>,
    /// `{schema}` and `{table}` stand for the table's.
    pub template: String,
    /// What is not in `tables`.
    pub unlisted: Unlisted,
    /// Truncates.
    pub truncate: Truncate,
    /// Topic of logical messages; `None`: nowhere, counted.
    pub message_topic: Option<String>,
    /// Prefixes of logical messages that are taken; empty: all.
    pub message_prefixes: Vec<String>,
}

/// Where one table's rows go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// The topic.
    pub topic: Arc<str>,
    /// The key's columns, as indexes into the relation's, in the order wanted. Empty: no key.
    pub key: Box<[usize]>,
    /// Those of `key` that PostgreSQL does not send of an old row, as the replica identity has them
    /// not: a delete of such a row has no key and cannot be stored. To be warned of once.
    pub unidentified: Box<[usize]>,
}

/// What becomes of a table's rows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// They go there.
    Topic(Route),
    /// They go nowhere, as `topic.unlisted` says; counted.
    Skip,
}

/// All routes, checked.
#[derive(Clone, Debug)]
pub struct Routes {
    /// By name as `[tables]` has it.
    tables: BTreeMap<String, Table>,
    /// The quoted entries of `tables`: schema and table to entry.
    quoted: BTreeMap<(String, String), String>,
    template: String,
    unlisted: Unlisted,
    truncate: To,
    message: Option<Arc<str>>,
    prefixes: Vec<String>,
}

/// [`Truncate`], compiled.
#[derive(Clone, Debug)]
enum To {
    Table,
    Nowhere,
    Topic(Arc<str>),
}

impl Routes {
    /// Checks what can be checked without a table.
    ///
    /// # Errors
    /// All but [`Error::Refused`] and [`Error::KeyColumn`].
    pub fn new(options: Options) -> Result<Self, Error> {
        let mut quoted = BTreeMap::new();
        for (name, table) in &options.tables {
            check_table(name, table)?;
            if name.contains('"') {
                let Some(parts) = unquote(name) else {
                    return Err(Error::Quotes { table: name.clone() });
                };
                let plain = format!("{}.{}", parts.0, parts.1);
                let twice = options.tables.contains_key(&plain);
                if twice || quoted.insert(parts, name.clone()).is_some() {
                    return Err(Error::TableTwice { table: name.clone() });
                }
            }
        }
        fill(&options.template, "", "")
            .ok_or_else(|| Error::Template { template: options.template.clone() })?;
        let truncate = match options.truncate {
            Truncate::Table => To::Table,
            Truncate::Skip => To::Nowhere,
            Truncate::Topic(topic) => To::Topic(checked(topic, || "truncate".to_owned())?),
        };
        let message = options
            .message_topic
            .map(|topic| checked(topic, || "message.topic".to_owned()))
            .transpose()?;
        Ok(Self {
            tables: options.tables,
            quoted,
            template: options.template,
            unlisted: options.unlisted,
            truncate,
            message,
            prefixes: options.message_prefixes,
        })
    }

    /// Where the rows of `relation` go.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::KeyColumn`], or [`Error::Topic`] for a name that the template
    /// made.
    pub fn compile(&self, relation: &Relation) -> Result<Outcome, Error> {
        let table = self.entry(&relation.namespace, &relation.name);
        match (table, self.unlisted) {
            (None, Unlisted::Skip) => return Ok(Outcome::Skip),
            (None, Unlisted::Refuse) => {
                return Err(Error::Refused { table: relation.qualified() });
            }
            (Some(_), _) | (None, Unlisted::Route) => {}
        }
        let topic = match table.and_then(|table| table.topic.clone()) {
            Some(topic) => topic,
            None => fill(&self.template, &relation.namespace, &relation.name)
                .ok_or_else(|| Error::Template { template: self.template.clone() })?,
        };
        let topic = checked(topic, || format!("table {}", relation.qualified()))?;
        let key = match table.and_then(|table| table.key.as_ref()) {
            Some(names) => named(relation, names)?,
            None => relation.key.clone(),
        };
        let unidentified = unidentified(relation, &key);
        Ok(Outcome::Topic(Route { topic, key, unidentified }))
    }

    /// The topic of a table's rows, before anything but its name is known; `None`: it goes nowhere,
    /// or is refused when a row comes.
    #[must_use]
    pub fn topic_of(&self, namespace: &str, name: &str) -> Option<String> {
        let table = self.entry(namespace, name);
        match (table, self.unlisted) {
            (None, Unlisted::Skip | Unlisted::Refuse) => None,
            (Some(Table { topic: Some(topic), .. }), _) => Some(topic.clone()),
            (Some(_), _) | (None, Unlisted::Route) => fill(&self.template, namespace, name),
        }
    }

    /// Where a truncate of a table with this route goes; `None`: nowhere, counted.
    #[must_use]
    pub fn truncate<'a>(&'a self, route: &'a Route) -> Option<&'a Arc<str>> {
        match &self.truncate {
            To::Table => Some(&route.topic),
            To::Nowhere => None,
            To::Topic(topic) => Some(topic),
        }
    }

    /// Where a logical message with this prefix goes; `None`: nowhere, counted.
    #[must_use]
    pub fn message(&self, prefix: &str) -> Option<&Arc<str>> {
        let wanted = self.prefixes.is_empty() || self.prefixes.iter().any(|p| p == prefix);
        self.message.as_ref().filter(|_| wanted)
    }

    /// Whether `[tables]` lists this table.
    #[must_use]
    pub fn lists(&self, namespace: &str, name: &str) -> bool {
        self.entry(namespace, name).is_some()
    }

    /// The tables of `[tables]`, as `schema.table` without quotes: how the catalog is asked for them.
    #[must_use]
    pub fn listed(&self) -> Vec<String> {
        let quoted = self.quoted.iter().map(|((namespace, name), _)| format!("{namespace}.{name}"));
        let plain = self.tables.keys().filter(|entry| !self.quoted.values().any(|q| q == *entry));
        quoted.chain(plain.cloned()).collect()
    }

    /// The entries of `[tables]` that are none of `published`, which are pairs of schema and table.
    pub fn unpublished<'a>(
        &self,
        published: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Vec<&str> {
        let found: BTreeSet<&str> = published
            .into_iter()
            .filter_map(|(namespace, name)| self.entry_name(namespace, name))
            .collect();
        self.tables.keys().map(String::as_str).filter(|name| !found.contains(name)).collect()
    }

    /// Whether a truncate may go to this topic, if it is one that rows go to.
    #[must_use]
    pub fn may_truncate(&self, topic: &str) -> bool {
        match &self.truncate {
            To::Table => self.message.as_deref() != Some(topic),
            To::Topic(name) => **name == *topic,
            To::Nowhere => false,
        }
    }

    /// Every topic that the configuration names, in order: what can be looked for at the start.
    #[must_use]
    pub fn topics(&self) -> BTreeSet<&str> {
        let tables = self.tables.values().filter_map(|table| table.topic.as_deref());
        let truncate = match &self.truncate {
            To::Topic(topic) => Some(&**topic),
            To::Table | To::Nowhere => None,
        };
        tables.chain(truncate).chain(self.message.as_deref()).collect()
    }

    fn entry(&self, namespace: &str, name: &str) -> Option<&Table> {
        self.tables.get(self.entry_name(namespace, name)?)
    }

    /// The quoted form first, as it can mean one table only.
    fn entry_name(&self, namespace: &str, name: &str) -> Option<&str> {
        if let Some(entry) = self.quoted.get(&(namespace.to_owned(), name.to_owned())) {
            return Some(entry);
        }
        let plain = format!("{namespace}.{name}");
        self.tables.get_key_value(&plain).map(|(entry, _)| entry.as_str())
    }
}

fn check_table(name: &str, table: &Table) -> Result<(), Error> {
    if let Some(topic) = &table.topic {
        checked(topic.clone(), || format!("table {name}"))?;
    }
    let mut seen = BTreeSet::new();
    for column in table.key.iter().flatten() {
        if !seen.insert(column) {
            return Err(Error::KeyTwice { table: name.to_owned(), column: column.clone() });
        }
    }
    Ok(())
}

/// The columns of these names.
fn named(relation: &Relation, names: &[String]) -> Result<Box<[usize]>, Error> {
    let find =
        |name: &String| {
            relation.columns.iter().position(|column| *column.name == **name).ok_or_else(|| {
                Error::KeyColumn { table: relation.qualified(), column: name.clone() }
            })
        };
    names.iter().map(find).collect()
}

fn unidentified(relation: &Relation, key: &[usize]) -> Box<[usize]> {
    if relation.identity == ReplicaIdentity::Full {
        return Box::default();
    }
    let sent = |at: &usize| relation.columns.get(*at).is_some_and(|column| column.identity);
    key.iter().copied().filter(|at| !sent(at)).collect()
}

fn checked(topic: String, what: impl FnOnce() -> String) -> Result<Arc<str>, Error> {
    match topic_name(&topic) {
        Ok(()) => Ok(topic.into()),
        Err(why) => Err(Error::Topic { what: what(), topic, why }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::{Disposition, Exit};
    use crate::schema::{Column, PgType};

    fn options() -> Options {
        Options {
            tables: BTreeMap::new(),
            template: "{schema}.{table}".into(),
            unlisted: Unlisted::Route,
            truncate: Truncate::Table,
            message_topic: None,
            message_prefixes: Vec::new(),
        }
    }

    /// A table, its topic, its key.
    type Entry<'a> = (&'a str, Option<&'a str>, Option<&'a [&'a str]>);

    fn listing(entries: &[Entry<'_>]) -> Options {
        let table = |topic: Option<&str>, key: Option<&[&str]>| Table {
            topic: topic.map(str::to_owned),
            key: key.map(|key| key.iter().map(|&k| k.to_owned()).collect()),
        };
        let tables = entries.iter().map(|(name, topic, key)| ((*name).into(), table(*topic, *key)));
        Options { tables: tables.collect(), unlisted: Unlisted::Refuse, ..options() }
    }

    fn relation(namespace: &str, name: &str) -> Relation {
        let column = |name: &str, identity| Column {
            name: name.into(),
            type_oid: 23,
            identity,
            kind: PgType::Integer,
        };
        Relation {
            oid: 1,
            namespace: namespace.into(),
            name: name.into(),
            identity: ReplicaIdentity::Default,
            columns: [column("id", true), column("a", false), column("b", false)].into(),
            key: [0].into(),
        }
    }

    fn route(options: Options, relation: &Relation) -> Route {
        match Routes::new(options).unwrap().compile(relation).unwrap() {
            Outcome::Topic(route) => route,
            Outcome::Skip => panic!("skipped"),
        }
    }

    #[test]
    fn the_template_names_the_topic_of_what_is_not_listed() {
        let found = route(options(), &relation("public", "users"));
        assert_eq!((&*found.topic, &*found.key), ("public.users", &[0][..]));
        let odd = Options { template: "cdc_{table}-{schema}.{table}".into(), ..options() };
        assert_eq!(&*route(odd, &relation("s", "t")).topic, "cdc_t-s.t");
    }

    #[test]
    fn a_name_that_looks_like_the_template_is_not_filled_again() {
        assert_eq!(fill("{schema}.{table}", "{table}", "x").as_deref(), Some("{table}.x"));
        for bad in ["{tabel}", "{", "}", "{{table}}", "{schema"] {
            let error = Routes::new(Options { template: bad.into(), ..options() }).unwrap_err();
            assert_eq!(error, Error::Template { template: bad.into() });
        }
    }

    #[test]
    fn a_listed_table_has_its_own_topic_and_key_in_the_order_asked_for() {
        let found = listing(&[("public.users", Some("users.0"), Some(&["b", "id"]))]);
        let found = route(found, &relation("public", "users"));
        assert_eq!((&*found.topic, &*found.key), ("users.0", &[2, 0][..]));
        assert_eq!(&*found.unidentified, &[2]); // a delete does not tell b
    }

    #[test]
    fn a_listed_table_without_a_topic_takes_the_template() {
        let found = route(listing(&[("s.t", None, Some(&[]))]), &relation("s", "t"));
        assert_eq!((&*found.topic, &*found.key), ("s.t", &[][..]));
    }

    #[test]
    fn with_identity_full_every_key_is_known() {
        let mut relation = relation("s", "t");
        relation.identity = ReplicaIdentity::Full;
        assert!(route(listing(&[("s.t", None, Some(&["b"]))]), &relation).unidentified.is_empty());
    }

    #[test]
    fn names_are_matched_as_postgresql_has_them_plain_or_quoted() {
        for (entry, namespace, name) in [
            ("public.Users", "public", "Users"),
            ("a.b.c", "a.b", "c"),
            ("a.b.c", "a", "b.c"),
            (r#""Weird"."Tab.le""#, "Weird", "Tab.le"),
            (r#"public."Tab.le""#, "public", "Tab.le"),
            (r#""a""b"."c""#, "a\"b", "c"),
            ("тест.таблица", "тест", "таблица"),
        ] {
            let routes = Routes::new(listing(&[(entry, Some("t"), None)])).unwrap();
            assert!(routes.lists(namespace, name), "{entry}");
            assert!(!routes.lists(namespace, "other"), "{entry}");
            assert_eq!(routes.listed(), [format!("{namespace}.{name}")], "{entry}");
        }
        let routes = Routes::new(listing(&[(r#""a"."b.c""#, Some("t"), None)])).unwrap();
        assert!(!routes.lists("a.b", "c"));
        assert!(
            !Routes::new(listing(&[("public.Users", None, None)]))
                .unwrap()
                .lists("public", "users")
        );
    }

    #[test]
    fn quotes_that_make_no_table_are_refused() {
        for bad in [r#""a"#, r#""a"."#, r#""a"."b"c"#, r#"""."b""#, r#"a"b.c"#, r#""a""#] {
            let error = Routes::new(listing(&[(bad, None, None)])).unwrap_err();
            assert_eq!(error, Error::Quotes { table: bad.into() });
        }
    }

    #[test]
    fn one_table_written_in_two_ways_is_refused() {
        for two in [["s.t", r#""s"."t""#], [r#"s."t""#, r#""s"."t""#]] {
            let error = Routes::new(listing(&two.map(|name| (name, None, None)))).unwrap_err();
            assert!(matches!(error, Error::TableTwice { .. }), "{two:?}");
        }
    }

    #[test]
    fn an_unlisted_table_is_skipped_or_refused_by_name() {
        let skip = Routes::new(Options { unlisted: Unlisted::Skip, ..options() }).unwrap();
        assert_eq!(skip.compile(&relation("s", "t")), Ok(Outcome::Skip));
        let refuse = Routes::new(Options { unlisted: Unlisted::Refuse, ..options() }).unwrap();
        let error = refuse.compile(&relation("s", "t")).unwrap_err();
        assert_eq!(error.disposition(), Disposition::Halt(Exit::Data));
        let text = error.to_string();
        assert!(text.contains("s.t") && text.contains("topic.unlisted"), "{text}");
    }

    #[test]
    fn a_missing_key_column_is_named() {
        let routes = Routes::new(listing(&[("s.t", None, Some(&["ID"]))])).unwrap();
        let error = routes.compile(&relation("s", "t")).unwrap_err();
        assert_eq!(error, Error::KeyColumn { table: "s.t".into(), column: "ID".into() });
        let twice = Routes::new(listing(&[("s.t", None, Some(&["a", "a"]))])).unwrap_err();
        assert!(matches!(twice, Error::KeyTwice { .. }));
    }

    #[test]
    fn what_kafka_does_not_take_is_an_error_and_never_another_name() {
        for (namespace, name) in [("public", "Größe"), ("a b", "c"), ("s", &*"x".repeat(250))] {
            let error = Routes::new(options()).unwrap().compile(&relation(namespace, name));
            let text = error.unwrap_err().to_string();
            assert!(text.contains(&format!("table {namespace}.{name}")), "{text}");
        }
        for bad in ["", ".", "..", "a/b", "a\0", "ä"] {
            assert!(topic_name(bad).is_err(), "{bad:?}");
            assert!(Routes::new(listing(&[("s.t", Some(bad), None)])).is_err(), "{bad:?}");
            assert!(Routes::new(Options { message_topic: Some(bad.into()), ..options() }).is_err());
            let truncate = Truncate::Topic(bad.into());
            assert!(Routes::new(Options { truncate, ..options() }).is_err(), "{bad:?}");
        }
        assert_eq!(topic_name(&"x".repeat(249)), Ok(()));
        assert_eq!(topic_name("Az09._-"), Ok(()));
    }

    #[test]
    fn truncates_follow_their_table_or_go_where_they_are_told() {
        let table = route(options(), &relation("s", "t"));
        let to = |truncate| {
            let routes = Routes::new(Options { truncate, ..options() }).unwrap();
            routes.truncate(&table).map(|topic| topic.to_string())
        };
        assert_eq!(to(Truncate::Table).as_deref(), Some("s.t"));
        assert_eq!(to(Truncate::Skip), None);
        assert_eq!(to(Truncate::Topic("x".into())).as_deref(), Some("x"));
        let may = |truncate, topic: &str| {
            let message_topic = Some("messages".into());
            let all = Options { truncate, message_topic, ..options() };
            Routes::new(all).unwrap().may_truncate(topic)
        };
        assert!(may(Truncate::Table, "s.t") && !may(Truncate::Table, "messages"));
        assert!(may(Truncate::Topic("x".into()), "x") && !may(Truncate::Topic("x".into()), "s.t"));
        assert!(!may(Truncate::Skip, "s.t"));
    }

    #[test]
    fn messages_go_nowhere_unless_a_topic_is_named() {
        assert_eq!(Routes::new(options()).unwrap().message("a"), None);
        let all = Options { message_topic: Some("m".into()), ..options() };
        assert_eq!(Routes::new(all.clone()).unwrap().message("a").map(|t| &**t), Some("m"));
        let some = Options { message_prefixes: vec!["a".into()], ..all };
        let some = Routes::new(some).unwrap();
        assert_eq!((some.message("a").is_some(), some.message("ab").is_some()), (true, false));
    }

    #[test]
    fn tells_what_is_listed_and_not_published_and_every_topic() {
        let options = Options {
            truncate: Truncate::Topic("gone".into()),
            message_topic: Some("m".into()),
            ..listing(&[("s.a", Some("x"), None), (r#""s"."b""#, Some("x"), None)])
        };
        let routes = Routes::new(options).unwrap();
        assert_eq!(routes.unpublished([("s", "b"), ("s", "c")]), ["s.a"]);
        assert_eq!(routes.topics().into_iter().collect::<Vec<_>>(), ["gone", "m", "x"]);
    }
}
