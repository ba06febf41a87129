// Checks a bundle of `session-ledger proof` with code that is not the ledger's: notes with golang.org/x/mod/sumdb/note,
// proofs with github.com/transparency-dev/merkle. Exit code 0 and "ok", or 1 and what does not hold.
//
//	interop KEY BUNDLE.json
package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
)

type included struct {
	LeafIndex uint64   `json:"leaf_index"`
	LeafData  []byte   `json:"leaf_data"`
	LeafHash  []byte   `json:"leaf_hash"`
	Hashes    [][]byte `json:"hashes"`
}

type bundle struct {
	included
	Kind           string     `json:"kind"`
	TreeSize       uint64     `json:"tree_size"`
	TreeSizeFrom   uint64     `json:"tree_size_from"`
	Checkpoint     string     `json:"checkpoint"`
	CheckpointFrom string     `json:"checkpoint_from"`
	Statement      *string    `json:"statement"`
	Events         []included `json:"events"`
}

type checkpoint struct {
	size uint64
	root []byte
}

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func run(key, file string) error {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var b bundle
	if err := json.Unmarshal(text, &b); err != nil {
		return err
	}
	to, err := open(b.Checkpoint, b.TreeSize, verifier)
	if err != nil {
		return err
	}
	switch b.Kind {
	case "inclusion":
		return check(b.included, to)
	case "consistency":
		from, err := open(b.CheckpointFrom, b.TreeSizeFrom, verifier)
		if err != nil {
			return err
		}
		return proof.VerifyConsistency(rfc6962.DefaultHasher, from.size, to.size, b.Hashes, from.root, to.root)
	case "session":
		if b.Statement != nil {
			if _, err := note.Open([]byte(*b.Statement), note.VerifierList(verifier)); err != nil {
				return err
			}
		}
		for _, event := range b.Events {
			if err := check(event, to); err != nil {
				return err
			}
		}
		if len(b.Events) == 0 {
			return errors.New("no event")
		}
		return nil
	}
	return fmt.Errorf("unknown kind %q", b.Kind)
}

// open gives the size and the root that the note is signed for, under its origin's name.
func open(signed string, size uint64, verifier note.Verifier) (checkpoint, error) {
	opened, err := note.Open([]byte(signed), note.VerifierList(verifier))
	if err != nil {
		return checkpoint{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return checkpoint{}, fmt.Errorf("not a checkpoint of %s", verifier.Name())
	}
	told, err := strconv.ParseUint(lines[1], 10, 64)
	if err != nil || told != size {
		return checkpoint{}, fmt.Errorf("size %q, not %d", lines[1], size)
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	return checkpoint{told, root}, err
}

func check(one included, to checkpoint) error {
	leaf := rfc6962.DefaultHasher.HashLeaf(one.LeafData)
	if string(leaf) != string(one.LeafHash) {
		return errors.New("leaf_hash is not that of leaf_data")
	}
	return proof.VerifyInclusion(rfc6962.DefaultHasher, one.LeafIndex, to.size, leaf, one.Hashes, to.root)
}
