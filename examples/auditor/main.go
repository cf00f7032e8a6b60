package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() { // verify PROOF VKEY
	proof, err := os.ReadFile(os.Args[1])
	must(err)
	vkey, err := os.ReadFile(os.Args[2])
	must(err)
	verifier, err := note.NewVerifier(strings.TrimSpace(string(vkey)))
	must(err)
	head, checkpoint, _ := strings.Cut(string(proof), "\n\n")
	signed, err := note.Open([]byte(checkpoint), note.VerifierList(verifier))
	must(err)
	lines := strings.Split(signed.Text, "\n")
	var size, index int64
	fmt.Sscan(lines[1], &size)
	root, err := tlog.ParseHash(lines[2])
	must(err)
	fields := strings.Split(head, "\n")
	entry, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(fields[1], "extra "))
	must(err)
	fmt.Sscan(strings.TrimPrefix(fields[2], "index "), &index)
	var path tlog.RecordProof
	for _, line := range fields[3:] {
		hash, err := tlog.ParseHash(line)
		must(err)
		path = append(path, hash)
	}
	must(tlog.CheckRecord(path, size, root, index, tlog.RecordHash(entry)))
	fmt.Println("revision", index+2, "is in", lines[0])
}
