//! The tables of the file, and how a write or a whole state maps to them.

use crate::record::{self, Decoder, Encoder, Place, RecordError};
use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};
use redkeep_consensus::{Entry, HardState, Persist, Recovered, Snapshot};
use std::collections::BTreeMap;

type Meta = TableDefinition<'static, &'static str, &'static [u8]>;

const META_NAME: &str = "meta";
const LOG_NAME: &str = "log";
const BURNED_NAME: &str = "burned";
const META: Meta = TableDefinition::new(META_NAME);
const LOG: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new(LOG_NAME);
const BURNED: Meta = TableDefinition::new(BURNED_NAME);

/// Keys of the table of single values. All but snapshot and hard state exist from the first
/// transaction on.
pub(crate) mod key {
    pub(crate) const FORMAT: &str = "format";
    pub(crate) const CLUSTER: &str = "cluster";
    pub(crate) const NODE: &str = "node";
    pub(crate) const DIR_ID: &str = "dir_id";
    pub(crate) const INCARNATION: &str = "incarnation";
    pub(crate) const BOOTSTRAPPED: &str = "bootstrapped";
    pub(crate) const HARD_STATE: &str = "hard_state";
    pub(crate) const SNAPSHOT: &str = "snapshot";
}

/// The database failed. redb has an error type per step; all convert into its general one.
#[derive(Debug)]
pub(crate) struct DatabaseFailure(pub(crate) Box<redb::Error>);

impl<E: Into<redb::Error>> From<E> for DatabaseFailure {
    fn from(error: E) -> DatabaseFailure {
        DatabaseFailure(Box::new(error.into()))
    }
}

/// A read failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    #[error("the database fails")]
    Database(#[source] Box<redb::Error>),
    #[error("table {table}, key {key}")]
    Record {
        table: &'static str,
        key: String,
        #[source]
        source: RecordError,
    },
}

impl<E: Into<redb::Error>> From<E> for TableError {
    fn from(error: E) -> TableError {
        TableError::Database(Box::new(error.into()))
    }
}

fn broken(
    table: &'static str,
    key: &(impl ToString + ?Sized),
) -> impl FnOnce(RecordError) -> TableError {
    let key = key.to_string();
    move |source| TableError::Record { table, key, source }
}

/// Writes within one transaction.
pub(crate) struct Writer<'t>(pub(crate) &'t WriteTransaction);

impl Writer<'_> {
    pub(crate) fn create(&self) -> Result<(), DatabaseFailure> {
        self.0.open_table(META)?;
        self.0.open_table(LOG)?;
        self.0.open_table(BURNED)?;
        Ok(())
    }

    pub(crate) fn put_meta(
        &self,
        key: &'static str,
        content: &[u8],
    ) -> Result<(), DatabaseFailure> {
        let place = Place { table: META_NAME, key: key.as_bytes() };
        self.0.open_table(META)?.insert(key, &record::seal(place, content)[..])?;
        Ok(())
    }

    pub(crate) fn put_number(&self, key: &'static str, number: u64) -> Result<(), DatabaseFailure> {
        self.put_meta(key, &Encoder::default().u64(number).0)
    }

    pub(crate) fn put_hard_state(&self, state: HardState) -> Result<(), DatabaseFailure> {
        self.put_meta(key::HARD_STATE, &record::encode_hard_state(state))
    }

    pub(crate) fn put_burned(&self, group: &str, epoch: u64) -> Result<(), DatabaseFailure> {
        let place = Place { table: BURNED_NAME, key: group.as_bytes() };
        let content = Encoder::default().u64(epoch).0;
        self.0.open_table(BURNED)?.insert(group, &record::seal(place, &content)[..])?;
        Ok(())
    }

    /// Does what [`Persist::apply_to`] says.
    pub(crate) fn persist(&self, write: &Persist) -> Result<(), DatabaseFailure> {
        if let Some(state) = write.hard_state {
            self.put_hard_state(state)?;
        }
        if let Some(snapshot) = &write.snapshot {
            self.put_meta(key::SNAPSHOT, &record::encode_snapshot(snapshot))?;
        }
        let mut log = self.0.open_table(LOG)?;
        if write.replace_log {
            log.retain(|_, _| false)?;
        }
        if let Some(first) = write.entries.first() {
            log.retain_in(first.index.., |_, _| false)?;
        }
        for entry in &write.entries {
            put_entry(&mut log, entry)?;
        }
        if let Some(keep_from) = write.truncate_before {
            log.retain_in(..keep_from, |_, _| false)?;
        }
        Ok(())
    }
}

fn put_entry(
    log: &mut Table<'_, u64, &'static [u8]>,
    entry: &Entry,
) -> Result<(), DatabaseFailure> {
    let place = Place { table: LOG_NAME, key: &entry.index.to_le_bytes() };
    log.insert(entry.index, &record::seal(place, &record::encode_entry(entry))[..])?;
    Ok(())
}

/// Reads within one transaction.
pub(crate) struct Reader<'t>(pub(crate) &'t ReadTransaction);

impl Reader<'_> {
    fn optional(&self, key: &'static str) -> Result<Option<Vec<u8>>, TableError> {
        let Some(value) = self.0.open_table(META)?.get(key)? else { return Ok(None) };
        let place = Place { table: META_NAME, key: key.as_bytes() };
        let content = record::unseal(place, value.value()).map_err(broken(META_NAME, key))?;
        Ok(Some(content.to_vec()))
    }

    pub(crate) fn meta(&self, key: &'static str) -> Result<Vec<u8>, TableError> {
        self.optional(key)?.ok_or(RecordError::Missing).map_err(broken(META_NAME, key))
    }

    pub(crate) fn text(&self, key: &'static str) -> Result<String, TableError> {
        String::from_utf8(self.meta(key)?)
            .map_err(|_| RecordError::Value)
            .map_err(broken(META_NAME, key))
    }

    pub(crate) fn number(&self, key: &'static str) -> Result<u64, TableError> {
        decode_number(&self.meta(key)?).map_err(broken(META_NAME, key))
    }

    pub(crate) fn dir_id(&self) -> Result<u128, TableError> {
        <[u8; 16]>::try_from(self.meta(key::DIR_ID)?)
            .map(u128::from_le_bytes)
            .map_err(|_| RecordError::Short)
            .map_err(broken(META_NAME, key::DIR_ID))
    }

    pub(crate) fn recovered(&self) -> Result<Recovered, TableError> {
        let hard_state = match self.optional(key::HARD_STATE)? {
            Some(content) => {
                record::decode_hard_state(&content).map_err(broken(META_NAME, key::HARD_STATE))?
            }
            None => HardState::default(),
        };
        Ok(Recovered { hard_state, snapshot: self.snapshot()?, entries: self.entries()? })
    }

    fn snapshot(&self) -> Result<Option<Snapshot>, TableError> {
        self.optional(key::SNAPSHOT)?
            .map(|content| record::decode_snapshot(&content))
            .transpose()
            .map_err(broken(META_NAME, key::SNAPSHOT))
    }

    fn entries(&self) -> Result<Vec<Entry>, TableError> {
        let log = self.0.open_table(LOG)?;
        let mut entries = Vec::new();
        for row in log.iter()? {
            let (index, value) = row?;
            let index = index.value();
            let place = Place { table: LOG_NAME, key: &index.to_le_bytes() };
            let entry = record::unseal(place, value.value())
                .and_then(record::decode_entry)
                .and_then(
                    |entry| if entry.index == index { Ok(entry) } else { Err(RecordError::Value) },
                )
                .map_err(broken(LOG_NAME, &index))?;
            entries.push(entry);
        }
        Ok(entries)
    }

    pub(crate) fn burned(&self) -> Result<BTreeMap<String, u64>, TableError> {
        let table = self.0.open_table(BURNED)?;
        let mut burned = BTreeMap::new();
        for row in table.iter()? {
            let (group, value) = row?;
            let group = group.value().to_owned();
            let place = Place { table: BURNED_NAME, key: group.as_bytes() };
            let epoch = record::unseal(place, value.value())
                .and_then(decode_number)
                .map_err(broken(BURNED_NAME, &group))?;
            burned.insert(group, epoch);
        }
        Ok(burned)
    }
}

fn decode_number(content: &[u8]) -> Result<u64, RecordError> {
    let mut from = Decoder(content);
    let number = from.u64()?;
    from.end()?;
    Ok(number)
}
