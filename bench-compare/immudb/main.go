// The workload that immudb's own stress tool publishes figures for, on its embedded store, in one process:
// entries in batches, committed by several workers.
//
//	go run . -entries 1000000 -batch 1000 -workers 20 -value 128 [-sync]
//
// Prints entries a second until all are committed, and until its hash tree has them too.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"github.com/codenotary/immudb/embedded/store"
)

func main() {
	entries := flag.Int("entries", 1_000_000, "entries in all")
	batch := flag.Int("batch", 1_000, "entries of a transaction")
	workers := flag.Int("workers", 20, "workers that commit")
	value := flag.Int("value", 128, "bytes of a value")
	synced := flag.Bool("sync", false, "a commit is durable when it returns")
	dir := flag.String("dir", ".", "where a temporary directory goes")
	flag.Parse()

	home, err := os.MkdirTemp(*dir, "immudb-")
	check(err)
	defer os.RemoveAll(home)
	// Keys and digests of a transaction's entries are kept in memory by their number.
	opts := store.DefaultOptions().WithSynced(*synced).WithMaxConcurrency(*workers).WithMaxTxEntries(*batch)
	st, err := store.Open(home, opts)
	check(err)

	ctx := context.Background()
	filler := make([]byte, *value)
	for i := range filler {
		filler[i] = 'v'
	}
	begun := time.Now()
	per := *entries / *workers
	var group sync.WaitGroup
	for worker := 0; worker < *workers; worker++ {
		group.Add(1)
		go func(first int) {
			defer group.Done()
			for at := first; at < first+per; at += *batch {
				tx, err := st.NewWriteOnlyTx(ctx)
				check(err)
				for n := at; n < at+*batch && n < first+per; n++ {
					check(tx.Set([]byte(fmt.Sprintf("%016x", n)), nil, filler))
				}
				_, err = tx.AsyncCommit(ctx)
				check(err)
			}
		}(worker * per)
	}
	group.Wait()
	committed := time.Since(begun)
	tx, _ := st.CommittedAlh()
	check(st.WaitForIndexingUpto(ctx, tx))
	indexed := time.Since(begun)
	check(st.Close())
	rate := func(d time.Duration) float64 { return float64(per**workers) / d.Seconds() }
	fmt.Printf("committed %.0f/s, indexed %.0f/s\n", rate(committed), rate(indexed))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
