#!/usr/bin/env python3
"""Checks a Chronolith history with Python's standard library and openssl, and no code of Chronolith.

    auditor.py checkpoint CHECKPOINT VKEY        the signature
    auditor.py proof PROOF VKEY                  one revision's entry is in the signed log
    auditor.py bundle BUNDLE VKEY [KEY]          entries, operations and values; the chain of one key
    auditor.py log DIRECTORY|URL VKEY [KEPT]     all tiles; that the log continues a checkpoint you kept

DIRECTORY is a `tlog` directory, URL a log's address for tlog clients, VKEY the log's public key or a file
that holds it. Exit code 0: proven; 1: not what was signed; 2: cannot be decided.

The formats are those of docs/verification.md: RFC 6962 hashes, C2SP signed-note, tlog-checkpoint,
tlog-proof and tlog-tiles, and the bundle.
"""

import base64
import hashlib
import os
import struct
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

TILE = 256
FIRST_REVISION = 2  # leaf i is revision i + 2
ED25519_DER = bytes.fromhex("302a300506032b6570032100")  # SubjectPublicKeyInfo up to the key's 32 bytes
PUT = 1
# How much of an operation a bundle shows.
FULL, META, HASH = b"\1", b"\2", b"\3"


class Tampered(Exception):
    """The bytes contradict each other or the signature."""


class Undecided(Exception):
    """Something that the check needs is missing."""


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def leaf_hash(entry):
    return sha256(b"\0", entry)


def node_hash(left, right):
    return sha256(b"\1", left, right)


def check(condition, what):
    if not condition:
        raise Tampered(what)


def base64_bytes(text):
    """The bytes of the one base64 form; the last digit could otherwise be written in several ways."""
    data = base64.b64decode(text, validate=True)
    check(base64.b64encode(data).decode() == text, "base64 in another form")
    return data


def number(text):
    """A number in the one decimal form."""
    check(text == str(int(text)), "a number in another form than plain decimal")
    return int(text)


# The tree (RFC 6962 and RFC 9162, 2.1.3.2).


def root_of(leaves, sizes):
    """Roots of the trees over the first n leaves, for each n in sizes, in one pass."""
    wanted, roots, stack, size = set(sizes), {}, [], 0

    def root():
        if not stack:
            return sha256()
        result = stack[-1][1]
        for _, left in reversed(stack[:-1]):
            result = node_hash(left, result)
        return result

    if 0 in wanted:
        roots[0] = root()
    for leaf in leaves:
        stack.append((0, leaf))
        while len(stack) > 1 and stack[-1][0] == stack[-2][0]:
            (height, right), (_, left) = stack.pop(), stack.pop()
            stack.append((height + 1, node_hash(left, right)))
        size += 1
        if size in wanted:
            roots[size] = root()
    missing = wanted - roots.keys()
    check(not missing, f"the log ends at revision {size + 1}, a checkpoint says {max(missing or [0]) + 1}")
    return roots


def check_inclusion(leaf, index, size, path, root, what):
    check(index < size, f"{what}: not inside the signed tree")
    first, last, result = index, size - 1, leaf
    for sibling in path:
        check(last > 0, f"{what}: its path is too long")
        if first & 1 or first == last:
            result = node_hash(sibling, result)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        first, last = first >> 1, last >> 1
    check(last == 0 and result == root, f"{what}: its path does not lead to the signed root")


# Notes, keys, checkpoints.


def read_key(text):
    if os.path.isfile(text):
        with open(text, encoding="ascii") as file:
            text = file.read()
    name, key_id, material = text.strip().split("+", 2)
    material = base64_bytes(material)
    if len(material) != 33 or material[0] != 1:
        raise Undecided("the key is no Ed25519 key of a log")
    if sha256(name.encode(), b"\n", material)[:4].hex() != key_id:
        raise Undecided("the key does not have the id that it is given")
    return name, bytes.fromhex(key_id), material[1:]


def signature_holds(public, message, signature):
    with tempfile.TemporaryDirectory() as place:
        files = {"key": ED25519_DER + public, "text": message, "signature": signature}
        for name, data in files.items():
            with open(os.path.join(place, name), "wb") as file:
                file.write(data)
        command = "openssl pkeyutl -verify -pubin -keyform DER -inkey key -rawin -in text -sigfile signature"
        ended = subprocess.run(command.split(), cwd=place, capture_output=True, check=False)
        return ended.returncode == 0


def open_checkpoint(note, key):
    """Size and root of a signed checkpoint."""
    name, key_id, public = key
    text, separator, lines = note.rpartition("\n\n")
    check(separator and note.endswith("\n"), "the checkpoint has no signatures")
    text += "\n"
    signed = False
    for line in lines.removesuffix("\n").split("\n"):
        check(line.startswith("\u2014 "), "a signature line begins with a dash")
        signer, _, encoded = line[2:].partition(" ")
        signature = base64_bytes(encoded)
        if signer == name and signature[:4] == key_id:
            check(signature_holds(public, text.encode(), signature[4:]), f"the signature of {name} is not valid")
            signed = True
    if not signed:
        raise Undecided(f"the checkpoint is not signed by {name}")
    origin, size, root = text[:-1].split("\n")
    check(origin == name, "the checkpoint is of another log")
    return number(size), base64_bytes(root)


# Entries, operations, values.


def open_entry(entry, what):
    """Revision, time, number of operations and their root."""
    check(len(entry) == 70 and entry[:2] == b"\1\0", f"{what}: not an entry of version 1")
    revision, time_ms, operations = struct.unpack(">QQI", entry[2:22])
    return revision, time_ms, operations, entry[38:]


class Record:
    """One operation: what happened to which key."""

    def __init__(self, data, what):
        fields = Fields(data, what)
        self.kind, self.key = fields.take(1)[0], fields.prefixed()
        self.previous, self.create, self.version, self.lease = struct.unpack(">4Q", fields.take(32))
        self.salt, self.digest = fields.take(16), fields.take(32)
        fields.end()


class Fields:
    """Bytes that are taken from the front."""

    def __init__(self, data, what):
        self.data, self.at, self.what = data, 0, what

    def take(self, count):
        taken = self.data[self.at : self.at + count]
        check(len(taken) == count, f"{self.what}: cut off")
        self.at += count
        return taken

    def u32(self):
        return struct.unpack(">I", self.take(4))[0]

    def prefixed(self):
        return self.take(self.u32())

    def path(self):
        return [self.take(32) for _ in range(self.take(1)[0])]

    def end(self):
        check(self.at == len(self.data), f"{self.what}: longer than what it holds")


# What can be asked for.


def read(path):
    with open(path, "rb") as file:
        return file.read()


def checkpoint(path, vkey):
    size, _ = open_checkpoint(read(path).decode(), read_key(vkey))
    return f"the checkpoint is signed; it speaks of everything up to revision {size + 1}"


def proof(path, vkey):
    head, separator, note = read(path).decode().partition("\n\n")
    check(separator, "the proof has no checkpoint")
    size, root = open_checkpoint(note, read_key(vkey))
    first, extra, index, *hashes = head.split("\n")
    check(first == "c2sp.org/tlog-proof@v1", "unknown first line")
    check(extra.startswith("extra ") and index.startswith("index "), "a field is missing")
    entry = base64_bytes(extra[6:])
    revision = open_entry(entry, "the entry")[0]
    check(number(index[6:]) + FIRST_REVISION == revision, "the entry is of another revision")
    path = [base64_bytes(line) for line in hashes]
    check_inclusion(leaf_hash(entry), number(index[6:]), size, path, root, f"revision {revision}")
    return f"revision {revision} is in the log that was signed up to revision {size + 1}"


def bundle(path, vkey, key=None):
    fields = Fields(read(path), "the bundle")
    check(fields.take(20) == b"chronolith/bundle/2\n", "unknown first line")
    size, root = open_checkpoint(fields.prefixed().decode(), read_key(vkey))
    newest, values, hashed = None, 0, set()
    count = fields.u32()
    for _ in range(count):
        entry = fields.take(70)
        revision, _, operations, operations_root = open_entry(entry, "an entry")
        what = f"revision {revision}"
        check_inclusion(leaf_hash(entry), revision - FIRST_REVISION, size, fields.path(), root, what)
        for _ in range(fields.u32()):
            position, path, shown = fields.u32(), fields.path(), fields.take(1)
            check(shown in (FULL, META, HASH), f"{what}: an unknown level of an operation")
            if shown == HASH:
                # What compaction or erasure left: it may have been any key's.
                leaf, record = fields.take(32), None
                hashed.add(revision)
            else:
                data = fields.prefixed()
                leaf, record = leaf_hash(data), Record(data, what)
            check_inclusion(leaf, position, operations, path, operations_root, what)
            if shown == FULL:
                value = fields.prefixed()
                fits = record.kind == PUT and sha256(record.salt, value) == record.digest
                check(fits, f"{what}: the value is not the one that was digested")
                values += 1
            if key is not None and record is not None and record.key == key.encode():
                unbroken = newest in (None, revision) or record.previous == newest
                unbroken = unbroken or record.previous > newest and record.previous in hashed
                check(unbroken, f"{what}: a version of the key before it is missing")
                newest = revision
    fields.end()
    return f"{count} revisions and {values} values are in the log that was signed up to revision {size + 1}"


def fetch(source, path):
    """A file of the log, by its tlog-tiles name; none where it does not exist."""
    try:
        with urllib.request.urlopen(f"{source}/{path}") as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def tile_name(level, index):
    name, rest = f"{index % 1000:03}", index // 1000
    while rest:
        name, rest = f"x{rest % 1000:03}/{name}", rest // 1000
    return f"tile/{level}/{name}"


def leaves_of(source, size):
    """The leaf hashes of the tiles: over HTTP one tile at a time, in a directory one file."""
    for index in range((size + TILE - 1) // TILE):
        width = min(TILE, size - index * TILE)
        if "://" in source:
            suffix = "" if width == TILE else f".p/{width}"
            tile = fetch(source, tile_name(0, index) + suffix)
        else:
            with open(os.path.join(source, "L0"), "rb") as file:
                file.seek(index * TILE * 32)
                tile = file.read(width * 32)
        if tile is None or len(tile) != width * 32:
            raise Tampered(f"the tiles end before revision {index * TILE + width + 1}")
        yield from (tile[at : at + 32] for at in range(0, len(tile), 32))


def entries_of(source, size):
    """The published entries, or nothing where the log publishes none."""
    for index in range((size + TILE - 1) // TILE):
        width = min(TILE, size - index * TILE)
        data = fetch(source, tile_name("entries", index) + ("" if width == TILE else f".p/{width}"))
        if data is None:
            return
        fields = Fields(data, "a tile of entries")
        for place in range(width):
            yield index * TILE + place, fields.take(struct.unpack(">H", fields.take(2))[0])
        fields.end()


def log(source, vkey, kept=None):
    key = read_key(vkey)
    note = fetch(source, "checkpoint") if "://" in source else read(os.path.join(source, "checkpoint"))
    if note is None:
        raise Undecided("nothing has been signed yet")
    signed = [open_checkpoint(note.decode(), key)]
    if kept is not None:
        signed.append(open_checkpoint(read(kept).decode(), key))
        check(signed[1][0] <= signed[0][0], f"the log was rolled back to revision {signed[0][0] + 1}")
    leaves = list(leaves_of(source, signed[0][0]))
    roots = root_of(leaves, [size for size, _ in signed])
    for (size, root), whose in zip(signed, ["the log's", "your"]):
        check(roots[size] == root, f"the tiles do not have the root of {whose} checkpoint at revision {size + 1}")
    seen, last = 0, 0
    for index, entry in entries_of(source, signed[0][0]) if "://" in source else ():
        revision, time_ms, _, _ = open_entry(entry, f"revision {index + FIRST_REVISION}")
        check(leaf_hash(entry) == leaves[index], f"revision {index + FIRST_REVISION}: entry and leaf differ")
        check(revision == index + FIRST_REVISION and time_ms >= last, f"revision {revision}: out of order")
        seen, last = seen + 1, time_ms
    since = f", and it continues your checkpoint of revision {signed[1][0] + 1}" if kept else ""
    return f"{len(leaves)} leaves and {seen} entries are what was signed{since}"


COMMANDS = {"checkpoint": (checkpoint, 2), "proof": (proof, 2), "bundle": (bundle, 2), "log": (log, 2)}


def main(arguments):
    command, needed = COMMANDS.get(arguments[0] if arguments else "", (None, 0))
    if command is None or not needed <= len(arguments) - 1 <= needed + 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print("proven:", command(*arguments[1:]))
        return 0
    except (Tampered, ValueError) as error:
        print("tampered:", error, file=sys.stderr)
        return 1
    except (Undecided, OSError) as error:
        print("cannot be verified:", error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
