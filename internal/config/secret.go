package config

import (
	"fmt"
	"os"
	"strings"
)

// A Secret is a value that a configuration gives itself or by the name of a file, whose first line, without space
// around it, is the value. Its keys are key and key_file.
type Secret struct {
	Key         string // as in the file, sections included
	Value, File string
}

// Validate reports that both are given. It does not open the file.
func (s Secret) Validate() error {
	if s.Value != "" && s.File != "" {
		return fmt.Errorf("%s, %s_file: only one of them may be set", s.Key, s.Key)
	}
	return nil
}

// IsZero reports whether neither is given.
func (s Secret) IsZero() bool { return s.Value == "" && s.File == "" }

// Read returns the value, "" when there is none.
func (s Secret) Read() (string, error) {
	if s.File == "" {
		return s.Value, nil
	}
	text, err := os.ReadFile(s.File)
	if err != nil {
		return "", fmt.Errorf("%s_file: %w", s.Key, err)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return strings.TrimSpace(line), nil
}

// minToken keeps tokens from being guessed, in characters.
const minToken = 16

// A Token is a Secret that a peer shows in a header.
type Token Secret

// Validate reports that both are given, or a value that is no token. It does not open the file.
func (t Token) Validate() error {
	err := Secret(t).Validate()
	if err == nil && t.Value != "" {
		err = checkToken(t.Key, t.Value)
	}
	return err
}

// Read returns the token, "" when there is none.
func (t Token) Read() (string, error) {
	token, err := Secret(t).Read()
	if err == nil && t.File != "" {
		err = checkToken(t.Key+"_file: "+t.File, token)
	}
	return token, err
}

func checkToken(key, token string) error {
	if len(token) < minToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%s: must be %d printable characters or more, without spaces", key, minToken)
	}
	return nil
}
