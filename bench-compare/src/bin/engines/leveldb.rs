//! LevelDB through its C interface (Debian's libleveldb-dev), with buffers as large as ours.
#![expect(unsafe_code, reason = "a foreign library's C interface")]

use super::{Contestant, Record};
use anyhow::{Result, bail, ensure};
use std::{
    ffi::{CStr, CString, c_char, c_int, c_uchar, c_void},
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr,
};

const WRITE_BUFFER_BYTES: usize = 64 << 20;
const CACHE_BYTES: usize = 256 << 20;
const BLOOM_BITS: c_int = 10;

type Object = *mut c_void;

#[link(name = "leveldb")]
unsafe extern "C" {
    fn leveldb_open(options: Object, name: *const c_char, error: *mut *mut c_char) -> Object;
    fn leveldb_close(database: Object);
    fn leveldb_write(database: Object, options: Object, batch: Object, error: *mut *mut c_char);
    fn leveldb_get(
        database: Object,
        options: Object,
        key: *const c_char,
        key_bytes: usize,
        value_bytes: *mut usize,
        error: *mut *mut c_char,
    ) -> *mut c_char;
    fn leveldb_free(pointer: Object);
    fn leveldb_options_create() -> Object;
    fn leveldb_options_set_create_if_missing(options: Object, value: c_uchar);
    fn leveldb_options_set_write_buffer_size(options: Object, bytes: usize);
    fn leveldb_options_set_cache(options: Object, cache: Object);
    fn leveldb_options_set_filter_policy(options: Object, policy: Object);
    fn leveldb_cache_create_lru(bytes: usize) -> Object;
    fn leveldb_filterpolicy_create_bloom(bits_per_key: c_int) -> Object;
    fn leveldb_readoptions_create() -> Object;
    fn leveldb_writeoptions_create() -> Object;
    fn leveldb_writeoptions_set_sync(options: Object, value: c_uchar);
    fn leveldb_writebatch_create() -> Object;
    fn leveldb_writebatch_destroy(batch: Object);
    fn leveldb_writebatch_put(
        batch: Object,
        key: *const c_char,
        key_bytes: usize,
        value: *const c_char,
        value_bytes: usize,
    );
    fn leveldb_writebatch_delete(batch: Object, key: *const c_char, key_bytes: usize);
}

struct LevelDb {
    database: Object,
    reading: Object,
    buffered: Object,
    synced: Object,
}

// SAFETY: LevelDB's handles may be used from any thread, and it does its own locking.
unsafe impl Send for LevelDb {}
// SAFETY: as above.
unsafe impl Sync for LevelDb {}

pub(super) fn open(dir: &Path) -> Result<Box<dyn Contestant + Send + Sync>> {
    let name = CString::new(dir.as_os_str().as_bytes())?;
    let mut error = ptr::null_mut();
    // SAFETY: each object comes from its `create` function and is used as the interface says; the
    // options, the cache and the policy live as long as the program, which opens a few databases.
    let (database, reading, buffered, synced) = unsafe {
        let options = leveldb_options_create();
        leveldb_options_set_create_if_missing(options, 1);
        leveldb_options_set_write_buffer_size(options, WRITE_BUFFER_BYTES);
        leveldb_options_set_cache(options, leveldb_cache_create_lru(CACHE_BYTES));
        leveldb_options_set_filter_policy(options, leveldb_filterpolicy_create_bloom(BLOOM_BITS));
        let synced = leveldb_writeoptions_create();
        leveldb_writeoptions_set_sync(synced, 1);
        let database = leveldb_open(options, name.as_ptr(), &raw mut error);
        (database, leveldb_readoptions_create(), leveldb_writeoptions_create(), synced)
    };
    check(error)?;
    Ok(Box::new(LevelDb { database, reading, buffered, synced }))
}

/// Turns the interface's error text into an error.
fn check(error: *mut c_char) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: LevelDB allocated the text, it ends with a zero, and nobody else frees it.
    let text = unsafe {
        let text = CStr::from_ptr(error).to_string_lossy().into_owned();
        leveldb_free(error.cast());
        text
    };
    bail!("leveldb: {text}")
}

impl Contestant for LevelDb {
    fn write(&self, records: &[Record], sync: bool) -> Result<()> {
        let mut error = ptr::null_mut();
        // SAFETY: keys and values outlive the calls, which copy them; the batch is ours until destroyed.
        unsafe {
            let batch = leveldb_writebatch_create();
            for (key, value) in records {
                let (key_start, value_start) = (key.as_ptr().cast(), value.as_ptr().cast());
                leveldb_writebatch_put(batch, key_start, key.len(), value_start, value.len());
            }
            let options = if sync { self.synced } else { self.buffered };
            leveldb_write(self.database, options, batch, &raw mut error);
            leveldb_writebatch_destroy(batch);
        }
        check(error)
    }

    fn delete(&self, records: &[Record]) -> Result<()> {
        let mut error = ptr::null_mut();
        // SAFETY: keys outlive the calls, which copy them; the batch is ours until destroyed.
        unsafe {
            let batch = leveldb_writebatch_create();
            for (key, _) in records {
                leveldb_writebatch_delete(batch, key.as_ptr().cast(), key.len());
            }
            leveldb_write(self.database, self.buffered, batch, &raw mut error);
            leveldb_writebatch_destroy(batch);
        }
        check(error)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let (mut error, mut size) = (ptr::null_mut(), 0);
        let start = key.as_ptr().cast();
        // SAFETY: the database is open and the key outlives the call.
        let value = unsafe {
            leveldb_get(
                self.database,
                self.reading,
                start,
                key.len(),
                &raw mut size,
                &raw mut error,
            )
        };
        check(error)?;
        if value.is_null() {
            return Ok(None);
        }
        // SAFETY: LevelDB allocated `size` bytes for us, which are copied before they are freed.
        let copy = unsafe {
            let copy = std::slice::from_raw_parts(value.cast::<u8>(), size).to_vec();
            leveldb_free(value.cast());
            copy
        };
        ensure!(copy.len() == size, "a value is cut short");
        Ok(Some(copy))
    }
}

impl Drop for LevelDb {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once.
        unsafe { leveldb_close(self.database) }
    }
}
