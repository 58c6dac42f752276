//! What a row means: its table, its columns, and how the text of each value becomes JSON.

use std::sync::Arc;

/// A table as a Relation message described it, with what the catalog adds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Relation {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Schema, as it is, not quoted.
    pub namespace: Box<str>,
    /// Table, as it is, not quoted.
    pub name: Box<str>,
    /// What the old row of an update or delete holds.
    pub identity: ReplicaIdentity,
    /// In the order of every row's cells.
    pub columns: Box<[Column]>,
    /// The columns that tell rows apart, as indexes into `columns`, ascending: those of the replica
    /// identity, or with FULL those of the primary key. Empty: there is no key.
    pub key: Box<[usize]>,
}

impl Relation {
    /// `schema.table`, for people and for `[tables]`.
    #[must_use]
    pub fn qualified(&self) -> String {
        format!("{}.{}", self.namespace, self.name)
    }

    /// `schema.table`, each part as `quote_ident` writes it.
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote_ident(&self.namespace), quote_ident(&self.name))
    }
}

/// One column of a [`Relation`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Column {
    /// As it is, not quoted.
    pub name: Box<str>,
    /// `pg_type.oid`.
    pub type_oid: u32,
    /// Whether the Relation message flags it as part of the replica identity.
    pub identity: bool,
    /// How its text becomes JSON.
    pub kind: PgType,
}

/// `pg_class.relreplident`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReplicaIdentity {
    /// `d`: the primary key, if there is one.
    Default,
    /// `n`: nothing.
    Nothing,
    /// `f`: every column.
    Full,
    /// `i`: the columns of one unique index.
    Index,
}

/// What `to_json` does with a type: all that the encoder has to know of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PgType {
    /// `t` or `f`.
    Bool,
    /// int2, int4, int8: always a JSON number as it stands.
    Integer,
    /// float4, float8: a JSON number as it stands, but for NaN and the infinities.
    Float,
    /// numeric: by `format.numeric`.
    Numeric,
    /// date: ISO 8601 as it stands.
    Date,
    /// timestamp without time zone: ISO 8601 with a `T`.
    Timestamp,
    /// timestamp with time zone, printed in UTC: ISO 8601 with a `T` and `+00:00`.
    TimestampTz,
    /// json, jsonb: inlined.
    Json,
    /// An array; multi-dimensional ones are of the same type.
    Array {
        /// Type of the elements.
        element: Arc<Self>,
        /// `pg_type.typdelim`: a comma, but for `box` a semicolon. A space: `int2vector` and
        /// `oidvector`, which are arrays to `to_json` and have no braces.
        delimiter: u8,
    },
    /// Everything else: PostgreSQL's text as a JSON string.
    Text,
}

impl PgType {
    /// The types that PostgreSQL has from the start, by `pg_type.oid`. `None` if `oid` is none of them.
    ///
    /// Source: `src/include/catalog/pg_type.dat`; what `to_json` does with each:
    /// `json_categorize_type` in `src/backend/utils/adt/jsonfuncs.c`.
    #[must_use]
    pub fn builtin(oid: u32) -> Option<Self> {
        let array =
            |element: Self, delimiter| Self::Array { element: Arc::new(element), delimiter };
        Some(match oid {
            16 => Self::Bool,
            20 | 21 | 23 => Self::Integer,
            700 | 701 => Self::Float,
            1700 => Self::Numeric,
            1082 => Self::Date,
            1114 => Self::Timestamp,
            1184 => Self::TimestampTz,
            114 | 3802 => Self::Json,
            1000 => array(Self::Bool, b','),
            1005 | 1007 | 1016 => array(Self::Integer, b','),
            1021 | 1022 => array(Self::Float, b','),
            1231 => array(Self::Numeric, b','),
            1182 => array(Self::Date, b','),
            1115 => array(Self::Timestamp, b','),
            1185 => array(Self::TimestampTz, b','),
            199 | 3807 => array(Self::Json, b','),
            1020 => array(Self::Text, b';'),  // box[]
            22 => array(Self::Integer, b' '), // int2vector
            30 => array(Self::Text, b' '),    // oidvector
            1006 => array(array(Self::Integer, b' '), b','),
            1013 => array(array(Self::Text, b' '), b','),
            _ if BUILTIN_TEXT_ARRAYS.contains(&oid) => array(Self::Text, b','),
            0..FIRST_USER_OID => Self::Text,
            _ => return None,
        })
    }

    /// A type of `pg_catalog` by `pg_type.typname`: how a Type message names a domain's base type.
    /// `None` if it is not one of those that are more than text.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let oid = match name.strip_prefix('_').unwrap_or(name) {
            "bool" => 16,
            "int2" | "int4" | "int8" => 20,
            "float4" | "float8" => 700,
            "numeric" => 1700,
            "date" => 1082,
            "timestamp" => 1114,
            "timestamptz" => 1184,
            "json" | "jsonb" => 114,
            "text" | "varchar" | "bpchar" | "uuid" | "bytea" | "interval" => 25,
            _ => return None,
        };
        let kind = Self::builtin(oid)?;
        let array = name.starts_with('_');
        Some(if array { Self::Array { element: Arc::new(kind), delimiter: b',' } } else { kind })
    }
}

/// `FirstGenbkiObjectId`: from here on pgoutput sends a Type message.
pub const FIRST_USER_OID: u32 = 10_000;

/// `pg_type.oid` of every array whose elements are plain text to `to_json` (`typcategory = 'A'`).
const BUILTIN_TEXT_ARRAYS: &[u32] = &[
    143, 210, 270, 271, 272, 273, 629, 651, 719, 775, 791, 1001, 1002, 1003, 1008, 1009, 1010,
    1011, 1012, 1014, 1015, 1017, 1018, 1019, 1027, 1028, 1034, 1040, 1041, 1183, 1187, 1263, 1270,
    1561, 1563, 2201, 2207, 2208, 2209, 2210, 2211, 2949, 2951, 3221, 3643, 3644, 3645, 3735, 3770,
    3905, 3907, 3909, 3911, 3913, 3927, 4073, 4090, 4097, 4192, 5039, 6150, 6151, 6152, 6153, 6155,
    6157,
];

/// An identifier as PostgreSQL's `quote_ident` writes it: what is not plain lower case is quoted,
/// and so is what SQL takes for a word of its own.
#[must_use]
pub fn quote_ident(name: &str) -> String {
    let plain = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && KEYWORDS.binary_search(&name).is_err();
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Every keyword of PostgreSQL 14 to 18 that is reserved in one place or another, sorted:
/// `SELECT word FROM pg_get_keywords() WHERE catcode <> 'U'`. A newer one is quoted for an older
/// server too, so that a name is written alike everywhere.
#[rustfmt::skip]
const KEYWORDS: &[&str] = &[
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric",
    "authorization", "between", "bigint", "binary", "bit", "boolean", "both", "case", "cast",
    "char", "character", "check", "coalesce", "collate", "collation", "column", "concurrently",
    "constraint", "create", "cross", "current_catalog", "current_date", "current_role",
    "current_schema", "current_time", "current_timestamp", "current_user", "dec", "decimal",
    "default", "deferrable", "desc", "distinct", "do", "else", "end", "except", "exists",
    "extract", "false", "fetch", "float", "for", "foreign", "freeze", "from", "full", "grant",
    "greatest", "group", "grouping", "having", "ilike", "in", "initially", "inner", "inout",
    "int", "integer", "intersect", "interval", "into", "is", "isnull", "join", "json",
    "json_array", "json_arrayagg", "json_exists", "json_object", "json_objectagg", "json_query",
    "json_scalar", "json_serialize", "json_table", "json_value", "lateral", "leading", "least",
    "left", "like", "limit", "localtime", "localtimestamp", "merge_action", "national", "natural",
    "nchar", "none", "normalize", "not", "notnull", "null", "nullif", "numeric", "offset", "on",
    "only", "or", "order", "out", "outer", "overlaps", "overlay", "placing", "position",
    "precision", "primary", "real", "references", "returning", "right", "row", "select",
    "session_user", "setof", "similar", "smallint", "some", "substring", "symmetric",
    "system_user", "table", "tablesample", "then", "time", "timestamp", "to", "trailing", "treat",
    "trim", "true", "union", "unique", "user", "using", "values", "varchar", "variadic",
    "verbose", "when", "where", "window", "with", "xmlattributes", "xmlconcat", "xmlelement",
    "xmlexists", "xmlforest", "xmlnamespaces", "xmlparse", "xmlpi", "xmlroot", "xmlserialize",
    "xmltable",
];
