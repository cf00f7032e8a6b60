//! Roots and proofs against the published vectors and two implementations by others.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use chronolith_ledger::*;
use common::write_tiles;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use sha2::Sha256;
use std::cell::RefCell;
use tlog_tiles::{HashReader, TileHashReader, TileReader};

/// Leaves and roots of the reference implementation of Certificate Transparency.
const LEAVES: [&[u8]; 8] = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    b"\x50\x51\x52\x53\x54\x55\x56\x57",
    b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

#[test]
fn the_published_roots_come_out() {
    let leaves: Vec<_> = LEAVES.iter().map(|leaf| Hash::of_leaf(leaf)).collect();
    let mut frontier = Frontier::default();
    for (size, root) in ROOTS.iter().enumerate() {
        assert_eq!(frontier.root().to_string(), *root);
        assert_eq!(root_at(&leaves[..], size as u64).unwrap().to_string(), *root);
        frontier.extend(leaves.get(size).copied());
    }
}

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|index| Hash::of_leaf(&index.to_be_bytes())).collect()
}

fn ours(path: &[tlog_tiles::Hash]) -> Vec<Hash> {
    path.iter().map(|hash| Hash(hash.0)).collect()
}

fn theirs(path: &[Hash]) -> Vec<tlog_tiles::Hash> {
    path.iter().map(|hash| tlog_tiles::Hash(hash.0)).collect()
}

/// The store of hashes that tlog_tiles keeps for itself.
#[derive(Default)]
struct Stored(RefCell<Vec<tlog_tiles::Hash>>);

impl HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0.borrow()[*index as usize]).collect())
    }
}

#[test]
fn each_proof_of_each_small_tree_is_the_one_of_both_others() {
    let (stored, mut backed) = (Stored::default(), MemoryBackedTree::<Sha256, Vec<u8>>::new());
    for size in 1..70_u64 {
        let data = (size - 1).to_be_bytes();
        backed.push(data.to_vec());
        let hashes = tlog_tiles::stored_hashes(size - 1, &data, &stored).unwrap();
        stored.0.borrow_mut().extend(hashes);
        let leaves = leaves(size);
        let root = root_at(&leaves[..], size).unwrap();
        assert_eq!(root.0, backed.root().as_bytes()[..]);
        assert_eq!(root.0, tlog_tiles::tree_hash(size, &stored).unwrap().0);
        for index in 0..size {
            let path = inclusion_proof(&leaves[..], index, size).unwrap();
            assert_eq!(path, ours(&tlog_tiles::prove_record(size, index, &stored).unwrap()));
            assert_eq!(backed.prove_inclusion(index as usize).as_bytes(), bytes(&path));
            verify_inclusion(&leaves[index as usize], index, size, &path, &root).unwrap();
        }
        for old in 1..=size {
            let path = consistency_proof(&leaves[..], old, size).unwrap();
            if old < size {
                assert_eq!(path, ours(&tlog_tiles::prove_tree(size, old, &stored).unwrap()));
                assert_eq!(
                    backed.prove_consistency((size - old) as usize).as_bytes(),
                    bytes(&path)
                );
            }
            let old_root = root_at(&leaves[..], old).unwrap();
            verify_consistency(old, &old_root, size, &root, &path).unwrap();
        }
    }
}

fn bytes(path: &[Hash]) -> Vec<u8> {
    path.iter().flat_map(|hash| hash.0).collect()
}

/// Our tile files, read as any tlog client would: by path.
struct AsClient(TileFiles);

impl TileReader for AsClient {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = |tile: &tlog_tiles::Tile| {
            let (level, index, width) =
                (u32::from(tile.level()), tile.level_index(), u64::from(tile.width()));
            assert_eq!(tile.path().replacen("tile/8/", "tile/", 1), tile_path(level, index, width));
            self.0.tile(level, index, width).unwrap()
        };
        Ok(tiles.iter().map(read).collect())
    }

    fn save_tiles(&self, _: &[tlog_tiles::Tile], _: &[Vec<u8>]) {}
}

fn made_up_entry(index: u64) -> [u8; ENTRY_BYTES] {
    let mut entry = [1; ENTRY_BYTES];
    entry[2..10].copy_from_slice(&index.to_be_bytes());
    entry
}

/// The entries of a bundle, each behind its length, as tlog-tiles has it.
fn unframed(mut bundle: &[u8]) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = bundle.split_first_chunk::<2>() {
        let (entry, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)));
        entries.push(entry.to_vec());
        bundle = rest;
    }
    entries
}

#[test]
fn a_tlog_client_finds_the_entries_of_its_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let files = write_tiles(dir.path(), 700).files();
    for (index, width) in [(0, 256), (1, 256), (2, 188), (2, 5)] {
        let entries = unframed(&files.entry_bundle(index, width).unwrap());
        let leaves = files.entries(0, index * 256, width).unwrap();
        let hashes: Vec<_> = entries.iter().map(|entry| Hash::of_leaf(entry)).collect();
        assert_eq!((hashes, entries.len() as u64), (leaves, width));
    }
    assert_eq!(files.entry(41).unwrap().revision, 43);
    assert!(matches!(files.entry_bundle(2, 189), Err(Error::OutOfTree { .. })));
}

#[test]
fn a_tlog_client_reads_our_tiles() {
    let dir = tempfile::tempdir().unwrap();
    let size = 70_123;
    let mut writer = TileWriter::open(dir.path()).unwrap();
    let entries: Vec<_> = (0..size).map(made_up_entry).collect();
    entries.iter().for_each(|entry| writer.append(entry));
    let leaves: Vec<_> = entries.iter().map(|entry| Hash::of_leaf(entry)).collect();
    writer.flush().unwrap();
    let root = writer.frontier().root();
    let client = AsClient(writer.files());
    let reader = TileHashReader::new(size, tlog_tiles::Hash(root.0), &client);
    for index in [0, 255, 256, 65_535, 65_536, size - 1] {
        let path = tlog_tiles::prove_record(size, index, &reader).unwrap();
        assert_eq!(ours(&path), inclusion_proof(&writer.files(), index, size).unwrap());
        let leaf = tlog_tiles::Hash(leaves[index as usize].0);
        tlog_tiles::check_record(&path, size, tlog_tiles::Hash(root.0), index, leaf).unwrap();
    }
    for old in [1, 256, 257, 65_536, 70_000] {
        let path = consistency_proof(&writer.files(), old, size).unwrap();
        let old_root = tlog_tiles::Hash(root_at(&leaves[..], old).unwrap().0);
        let path = theirs(&path);
        tlog_tiles::check_tree(&path, size, tlog_tiles::Hash(root.0), old, old_root).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_proof_serves_another_leaf_place_or_size(size in 1u64..3000, index: u64, other: u64, bit in 0usize..256) {
        let (index, other) = (index % size, other % (size + 50));
        let leaves = leaves(size);
        let root = root_at(&leaves[..], size).unwrap();
        let leaf = leaves[index as usize];
        let path = inclusion_proof(&leaves[..], index, size).unwrap();
        prop_assert!(verify_inclusion(&leaf, index, size, &path, &root).is_ok());
        if other != index {
            prop_assert!(verify_inclusion(&leaf, other, size, &path, &root).is_err());
        }
        let mut forged = leaf;
        forged.0[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(verify_inclusion(&forged, index, size, &path, &root).is_err());
        let mut longer = path.clone();
        longer.push(root);
        prop_assert!(verify_inclusion(&leaf, index, size, &longer, &root).is_err());
        for place in 0..path.len() {
            let mut path = path.clone();
            path[place].0[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verify_inclusion(&leaf, index, size, &path, &root).is_err());
            path.remove(place);
            prop_assert!(verify_inclusion(&leaf, index, size, &path, &root).is_err());
        }
    }

    #[test]
    fn no_consistency_proof_joins_trees_that_are_not(old in 1u64..2000, more in 1u64..2000, bit in 0usize..256) {
        let new = old + more;
        let leaves = leaves(new);
        let (old_root, new_root) = (root_at(&leaves[..], old).unwrap(), root_at(&leaves[..], new).unwrap());
        let path = consistency_proof(&leaves[..], old, new).unwrap();
        prop_assert!(verify_consistency(old, &old_root, new, &new_root, &path).is_ok());
        let flip = |mut hash: Hash| { hash.0[bit / 8] ^= 1 << (bit % 8); hash };
        prop_assert!(verify_consistency(old, &flip(old_root), new, &new_root, &path).is_err());
        prop_assert!(verify_consistency(old, &old_root, new, &flip(new_root), &path).is_err());
        for place in 0..path.len() {
            let mut path = path.clone();
            path[place] = flip(path[place]);
            prop_assert!(verify_consistency(old, &old_root, new, &new_root, &path).is_err());
        }
    }

    #[test]
    fn the_frontier_of_the_tiles_is_the_frontier(size in 0u64..2000) {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = TileWriter::open(dir.path()).unwrap();
        (0..size).for_each(|index| writer.append(&made_up_entry(index)));
        writer.flush().unwrap();
        prop_assert_eq!(&writer.files().frontier_at(size).unwrap(), writer.frontier());
    }
}
