//! The statements, with the name of the schema in them.

use crate::store::EPOCH_OF_NOBODY;

/// The schema where the address names none.
const SCHEMA: &str = "quorate";

/// Makes a statement wait until what it commits is durable, as far as the server can: a role or a database may be set to
/// less (`synchronous_commit = off`), and more (`remote_apply`) is left as it is. Written for each transaction, because
/// behind a pooler a session is nobody's own. A standby that is not synchronous is not waited for in any case.
const DURABLE: &str = "durable as materialized (select case \
    when current_setting('synchronous_commit') in ('on', 'remote_apply') then '' \
    else set_config('synchronous_commit', 'on', true) end as set)";

#[derive(Clone, Debug)]
pub(super) struct Sql {
    /// What notices are sent on.
    pub(super) channel: String,
    /// Makes schema and tables; changes nothing where they are.
    pub(super) setup: String,
    /// Position, epoch, entry; one row if the entry was put, which it is not after the cluster has moved.
    pub(super) append: String,
    /// The row of `head`, locked for a moment.
    pub(super) tail: String,
    /// The same as it was committed last here, which a server that was replaced tells as well.
    pub(super) look: String,
    /// From, most entries, about how many bytes.
    pub(super) read: String,
    /// Serial, writer, number, bytes.
    pub(super) put_part: String,
    /// Serial, writer.
    pub(super) parts: String,
    /// Serial, writer, next, number of parts, bytes, SHA-256; one row if the pointer was moved.
    pub(super) point: String,
    /// Next, epoch, serial, writer, number of parts, bytes, SHA-256, first free position seen; one row if the log begins
    /// anew.
    pub(super) begin: String,
    /// Cluster; makes the ledger its own if it is nobody's, and tells whose it is.
    pub(super) claim: String,
    /// Cluster, where to; one row if it is the cluster's.
    pub(super) mark_moved: String,
    /// Deletes entries and parts that the row of `head` no longer names.
    pub(super) trim: [String; 2],
}

impl Sql {
    /// `schema` is of letters that need no quotes.
    pub(super) fn of(schema: Option<&str>) -> Self {
        let s = schema.unwrap_or(SCHEMA);
        Self {
            channel: s.to_owned(),
            setup: setup(s),
            append: format!(
                "with {DURABLE}, \
                 moved as (update {s}.head set next = $1 + 1, epoch = $2 from durable \
                     where next = $1 and moved_to is null returning next), \
                 put as (insert into {s}.entries (position, entry) select next - 1, $3 from moved returning position) \
                 select pg_notify('{s}', position::text) from put"
            ),
            tail: format!(
                "with {DURABLE} select next, epoch, first, cluster, moved_to from {s}.head, durable for update of head"
            ),
            look: format!(
                "select next, first, serial, writer, covers, parts, bytes, sha256 from {s}.head"
            ),
            read: format!(
                "select position, entry from ( \
                     select position, entry, sum(octet_length(entry)) over (order by position) as bytes from ( \
                         select position, entry from {s}.entries \
                         where position >= $1 and $1 >= (select first from {s}.head) order by position limit $2 \
                     ) wanted \
                 ) counted where bytes <= $3 or position = $1 order by position"
            ),
            put_part: format!(
                "insert into {s}.parts (serial, writer, number, bytes) values ($1, $2, $3, $4) \
                 on conflict (serial, writer, number) do nothing"
            ),
            parts: format!(
                "select bytes from {s}.parts where serial = $1 and writer = $2 and number >= $3 and number < $4 \
                 order by number"
            ),
            point: format!(
                "with {DURABLE} update {s}.head set serial = $1, writer = $2, covers = $3, parts = $4, bytes = $5, \
                 sha256 = $6, first = greatest(first, least(covers, next - 1)) from durable \
                 where serial = $1 - 1 and covers < $3 and next >= $3 returning first"
            ),
            begin: format!(
                "with {DURABLE}, begun as ( \
                     update {s}.head set next = $1, epoch = $2, first = $1, serial = $3, writer = $4, covers = $1, \
                     parts = $5, bytes = $6, sha256 = $7 from durable \
                     where next = $8 and serial = $3 - 1 and moved_to is null returning next) \
                 select pg_notify('{s}', (next - 1)::text) from begun"
            ),
            claim: format!(
                "with {DURABLE} update {s}.head set cluster = coalesce(cluster, $1) from durable \
                 returning cluster, moved_to"
            ),
            mark_moved: format!(
                "with {DURABLE} update {s}.head set moved_to = $2, epoch = {nobody} \
                 from durable where cluster = $1 returning cluster",
                nobody = EPOCH_OF_NOBODY.0
            ),
            trim: [
                format!("delete from {s}.entries where position < (select first from {s}.head)"),
                format!(
                    "delete from {s}.parts using {s}.head where parts.serial < head.serial \
                     or (parts.serial = head.serial and parts.writer <> head.writer)"
                ),
            ],
        }
    }
}

/// A schema that is there is not even asked to be made: that takes a right on the database which an owner of the schema
/// need not have. Room is left in the page of `head`, whose row is
/// written anew with every entry. Entries are not compressed: they are small, and the processor time is the leader's.
fn setup(s: &str) -> String {
    format!(
        "do $$ begin if not exists (select from pg_namespace where nspname = '{s}') then \
             create schema {s}; \
         end if; end $$; \
         create table if not exists {s}.head ( \
             id int primary key check (id = 1), \
             next bigint not null, epoch bigint not null, first bigint not null, \
             serial bigint not null, writer bigint not null, covers bigint not null, \
             parts bigint not null, bytes bigint not null, sha256 text not null, \
             cluster bigint, moved_to text \
         ) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000); \
         create table if not exists {s}.entries (position bigint primary key, entry bytea not null); \
         alter table {s}.entries alter column entry set storage external; \
         create table if not exists {s}.parts ( \
             serial bigint, writer bigint, number bigint, bytes bytea not null, primary key (serial, writer, number) \
         ); \
         insert into {s}.head values (1, 1, 0, 1, 0, 0, 0, 0, 0, '') on conflict do nothing"
    )
}
