//! A disk that forgets: what was not synced is lost by a power cut, sector by sector, and names
//! from the newest back. It can be told to fail in the middle of the n-th operation from now.

use super::rng::Rng;
use chronolith_raft::{Disk, DiskFile, SECTOR};
use parking_lot::Mutex;
use std::{collections::BTreeMap, io, sync::Arc};

type FileId = usize;

#[derive(Default)]
struct Content {
    /// What a process sees.
    current: Vec<u8>,
    /// What survives a power cut for certain.
    durable: Vec<u8>,
    is_dirty: bool,
}

#[derive(Clone)]
enum NameChange {
    Set(String, FileId),
    Remove(String),
}

struct State {
    rng: Rng,
    names: BTreeMap<String, FileId>,
    durable_names: BTreeMap<String, FileId>,
    name_changes: Vec<NameChange>,
    contents: Vec<Content>,
    /// Operations until the machine dies in the middle of one.
    fuse: Option<u64>,
    is_dead: bool,
    /// Says that a write is durable when it is not: a bug to be found.
    lies: bool,
}

#[derive(Clone)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

fn dead() -> io::Error {
    io::Error::other("the machine died")
}

fn apply(names: &mut BTreeMap<String, FileId>, change: &NameChange) {
    match change {
        NameChange::Set(name, id) => drop(names.insert(name.clone(), *id)),
        NameChange::Remove(name) => drop(names.remove(name)),
    }
}

impl State {
    /// `Ok(true)` where the operation is the one in which the machine dies.
    fn step(&mut self) -> io::Result<bool> {
        if self.is_dead {
            return Err(dead());
        }
        let Some(fuse) = &mut self.fuse else { return Ok(false) };
        self.is_dead = *fuse == 0;
        *fuse = fuse.saturating_sub(1);
        Ok(self.is_dead)
    }

    fn change(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.name_changes.push(change);
    }

    fn id(&self, name: &str) -> io::Result<FileId> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write(&mut self, id: FileId, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let dies = self.step()?;
        for (sector, at) in bytes.chunks(SECTOR).zip((offset..).step_by(SECTOR)) {
            if dies && self.rng.chance(50) {
                continue;
            }
            let content = &mut self.contents[id];
            content.current[at..at + sector.len()].copy_from_slice(sector);
            if dies || self.lies {
                content.is_dirty = true;
            } else {
                content.durable[at..at + sector.len()].copy_from_slice(sector);
            }
        }
        if dies { Err(dead()) } else { Ok(()) }
    }

    fn lose_power(&mut self) {
        let Self { contents, rng, .. } = self;
        for content in contents.iter_mut().filter(|content| content.is_dirty) {
            content.is_dirty = false;
            let sectors = content.current.chunks_mut(SECTOR);
            for (new, old) in sectors.zip(content.durable.chunks_mut(SECTOR)) {
                match rng.chance(50) {
                    true => old.copy_from_slice(new),
                    false => new.copy_from_slice(old),
                }
            }
        }
        let kept = self.rng.below(self.name_changes.len() as u64 + 1) as usize;
        for change in self.name_changes.drain(..).take(kept) {
            apply(&mut self.durable_names, &change);
        }
        self.names = self.durable_names.clone();
    }
}

impl SimDisk {
    pub(crate) fn new(seed: u64, lies: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: Rng::new(seed),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            contents: Vec::new(),
            fuse: None,
            is_dead: false,
            lies,
        })))
    }

    /// The machine dies in the middle of an operation soon.
    pub(crate) fn arm(&self, operations: u64) {
        self.0.lock().fuse = Some(operations);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.0.lock().is_dead
    }

    /// The process is gone; with the power the page cache goes too.
    pub(crate) fn reboot(&self, power_lost: bool) {
        let mut state = self.0.lock();
        if power_lost {
            state.lose_power();
        }
        (state.is_dead, state.fuse) = (false, None);
    }

    /// Every file as a process sees it.
    pub(crate) fn files(&self) -> Vec<(String, usize)> {
        let state = self.0.lock();
        let files = state.names.iter();
        files.map(|(name, id)| (name.clone(), state.contents[*id].current.len())).collect()
    }

    /// A second disk of the same content, with one byte changed.
    pub(crate) fn with_flip(&self, name: &str, offset: usize, mask: u8) -> Self {
        let state = self.0.lock();
        let copy = Self::new(0, false);
        let mut new = copy.0.lock();
        new.names = state.names.clone();
        new.durable_names = state.names.clone();
        new.contents = state
            .contents
            .iter()
            .map(|content| Content {
                current: content.current.clone(),
                durable: content.current.clone(),
                is_dirty: false,
            })
            .collect();
        let id = new.names[name];
        new.contents[id].current[offset] ^= mask;
        new.contents[id].durable[offset] ^= mask;
        drop(new);
        copy
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn zero(&self, name: &str, size_bytes: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        let dies = state.step()?;
        let size = size_bytes as usize;
        let id = match state.names.get(name) {
            Some(id) => *id,
            None => {
                state.contents.push(Content::default());
                let id = state.contents.len() - 1;
                state.change(NameChange::Set(name.to_owned(), id));
                id
            }
        };
        let content = &mut state.contents[id];
        content.current.resize(size, 0);
        content.durable.resize(size, 0);
        content.current.fill(0);
        if dies {
            content.is_dirty = true;
            return Err(dead());
        }
        content.durable.fill(0);
        content.is_dirty = false;
        Ok(())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.0.lock();
        Ok(Arc::new(SimFile { id: state.id(name)?, disk: self.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        let dies = state.step()?;
        let id = state.id(from)?;
        state.change(NameChange::Set(to.to_owned(), id));
        state.change(NameChange::Remove(from.to_owned()));
        if dies { Err(dead()) } else { Ok(()) }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        let dies = state.step()?;
        state.id(name)?;
        state.change(NameChange::Remove(name.to_owned()));
        if dies { Err(dead()) } else { Ok(()) }
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.step()? {
            return Err(dead());
        }
        state.name_changes.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }
}

struct SimFile {
    id: FileId,
    disk: SimDisk,
}

impl DiskFile for SimFile {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().contents[self.id].current.len() as u64)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let state = self.disk.0.lock();
        let from = offset as usize;
        let bytes = state.contents[self.id].current.get(from..from + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_synced(&self, offset: u64, blocks: &[u8]) -> io::Result<()> {
        self.disk.0.lock().write(self.id, offset as usize, blocks)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        if state.step()? {
            return Err(dead());
        }
        let content = &mut state.contents[self.id];
        content.durable = content.current.clone();
        content.is_dirty = false;
        Ok(())
    }
}
