// SPDX-License-Identifier: MIT
package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/fcgi"
	"os"
	"strings"
	"time"
)

func touch(path string) {
	if f, err := os.Create(path); err == nil {
		f.Close()
	}
}

func untilGone(w http.ResponseWriter, noticed string) {
	block := make([]byte, 16384)
	for i := 0; i < 2000; i++ {
		if _, err := w.Write(block); err != nil {
			touch(noticed)
			return
		}
		w.(http.Flusher).Flush()
		time.Sleep(10 * time.Millisecond)
	}
}

func waitUntilExists(path string) {
	for i := 0; i < 4000; i++ {
		if _, err := os.Stat(path); err == nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func get(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Matrix", "from the program")
	w.WriteHeader(203)
	fmt.Fprintf(w, "REQUEST_METHOD=%s\nQUERY_STRING=%s\nHTTP_X_MATRIX=%s\nMATRIX_USER=%s\n",
		r.Method, r.URL.RawQuery, r.Header.Get("X-Matrix"), fcgi.ProcessEnv(r)["MATRIX_USER"])
}

func respond(w http.ResponseWriter, r *http.Request) {
	what, rest, _ := strings.Cut(r.URL.RawQuery, "=")
	w.Header().Set("Content-Type", "application/octet-stream")
	switch {
	case r.Method == "POST":
		all, _ := io.ReadAll(r.Body)
		w.Write(all)
	case what == "big":
		io.WriteString(w, strings.Repeat("0123456789abcdef", 65536))
	case what == "gone":
		untilGone(w, rest)
	default:
		if what == "hold" {
			waitUntilExists(rest)
		}
		get(w, r)
	}
}

func main() {
	if err := fcgi.Serve(nil, http.HandlerFunc(respond)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
