//! LMDB through heed. heed has no way to renew a read transaction, so a get takes one of its own.

use super::{Key, Rival, first_word};
use heed::types::Bytes;
use heed::{
    CommitOrAbort, CompactionOption, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls,
};
use std::hint::black_box;
use std::path::Path;

#[derive(Clone)]
pub struct Lmdb<const WRITEMAP: bool, const SYNC: bool> {
    database: Database<'static, Bytes, Bytes>,
    env: Env<WithTls>,
}

/// Address space, not memory.
const MAP_BYTES: usize = 16 << 30;

impl<const WRITEMAP: bool, const SYNC: bool> Lmdb<WRITEMAP, SYNC> {
    fn find(&self, read: &RoTxn<'_, WithTls>, key: &Key) -> Option<u64> {
        self.database.get(read, key).expect("a get").map(first_word)
    }
}

impl<const WRITEMAP: bool, const SYNC: bool> Rival for Lmdb<WRITEMAP, SYNC> {
    fn open(dir: &Path) -> Self {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES).max_dbs(1).max_readers(126);
        let mut flags = EnvFlags::NO_MEM_INIT;
        flags.set(EnvFlags::WRITE_MAP, WRITEMAP);
        flags.set(EnvFlags::NO_SYNC, !SYNC);
        // SAFETY: of these flags NO_SYNC asks that the machine does not fail, which it does not here.
        unsafe { options.flags(flags) };
        // SAFETY: nobody changes the files by other means.
        let env = unsafe { options.open(dir) }.expect("the environment opens");
        // The database without a name is always there.
        let read = env.read_txn().expect("a transaction");
        let database = env
            .open_databases_and_commit(read, |options, read| {
                let database = options.open_database::<Bytes, Bytes>(read, None);
                database.map(CommitOrAbort::<_, ()>::Commit)
            })
            .expect("a database")
            .unwrap_commit()
            .expect("it is there");
        // SAFETY: the lifetime is the environment's, which lives beside the database.
        let database = unsafe {
            std::mem::transmute::<Database<'_, Bytes, Bytes>, Database<'static, Bytes, Bytes>>(
                database,
            )
        };
        Lmdb { database, env }
    }
    #[inline]
    fn get(&self, key: &Key) -> Option<u64> {
        self.find(&self.env.read_txn().expect("a transaction"), key)
    }
    fn get_all(&self, keys: &[Key]) -> usize {
        let read = self.env.read_txn().expect("a transaction");
        keys.iter().filter(|key| black_box(self.find(&read, key)).is_some()).count()
    }
    fn put(&self, key: &Key, value: &[u8]) {
        let mut write = self.env.write_txn().expect("a transaction");
        self.database.put(&mut write, key, value).expect("a put");
        write.commit().expect("a commit");
    }
    fn put_many(&self, entries: &[(Key, Vec<u8>)]) {
        let mut write = self.env.write_txn().expect("a transaction");
        for (key, value) in entries {
            self.database.put(&mut write, key, value).expect("a put");
        }
        write.commit().expect("a commit");
    }
    fn settle(self, dir: &Path) -> Self {
        self.env.force_sync().expect("a sync");
        let copy = dir.join("copy.mdb");
        self.env.copy_to_path(&copy, CompactionOption::Enabled).expect("a copy");
        let Lmdb { env, .. } = self;
        env.prepare_for_closing().wait();
        std::fs::rename(copy, dir.join("data.mdb")).expect("a rename");
        Self::open(dir)
    }
    fn share(&self) -> Self {
        self.clone()
    }
}
