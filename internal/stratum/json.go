package stratum

// maxDepth bounds the nesting of arrays and objects in a line. The deepest
// request known, mining.configure, needs 3.
const maxDepth = 16

// The functions below walk over the JSON in b from position i on. They return
// the position behind what they found, or -1 when it is not there.

func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// stringAt also returns what stands between the quotes, escapes included.
func stringAt(b []byte, i int) (text []byte, end int) {
	if i >= len(b) || b[i] != '"' {
		return nil, -1
	}
	start := i + 1
	for i = start; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return b[start:i], i + 1
		case c < ' ':
			return nil, -1
		case c == '\\':
			i++
			if i == len(b) {
				return nil, -1
			}
			switch b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if i+4 >= len(b) || !isHex(b[i+1:i+5]) {
					return nil, -1
				}
				i += 4
			default:
				return nil, -1
			}
		}
	}
	return nil, -1
}

func skipValue(b []byte, i, depth int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		_, end := stringAt(b, i)
		return end
	case '[':
		return skipList(b, i, depth, ']')
	case '{':
		return skipList(b, i, depth, '}')
	case 't':
		return skipWord(b, i, "true")
	case 'f':
		return skipWord(b, i, "false")
	case 'n':
		return skipWord(b, i, "null")
	default:
		return skipNumber(b, i)
	}
}

// skipList passes an array or an object; closer says which.
func skipList(b []byte, i, depth int, closer byte) int {
	if depth == maxDepth {
		return -1
	}
	i = space(b, i+1)
	if i < len(b) && b[i] == closer {
		return i + 1
	}
	for {
		if closer == '}' {
			_, end := stringAt(b, i)
			if end < 0 {
				return -1
			}
			i = space(b, end)
			if i == len(b) || b[i] != ':' {
				return -1
			}
			i = space(b, i+1)
		}
		if i = skipValue(b, i, depth+1); i < 0 {
			return -1
		}
		i = space(b, i)
		if i == len(b) {
			return -1
		}
		if b[i] == closer {
			return i + 1
		}
		if b[i] != ',' {
			return -1
		}
		i = space(b, i+1)
	}
}

func skipWord(b []byte, i int, word string) int {
	if len(b)-i < len(word) || string(b[i:i+len(word)]) != word {
		return -1
	}
	return i + len(word)
}

func skipNumber(b []byte, i int) int {
	if i < len(b) && b[i] == '-' {
		i++
	}
	start := i
	i = skipDigits(b, i)
	if i == start || b[start] == '0' && i > start+1 {
		return -1
	}
	if i < len(b) && b[i] == '.' {
		start = i + 1
		if i = skipDigits(b, start); i == start {
			return -1
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		start = i
		if i = skipDigits(b, start); i == start {
			return -1
		}
	}
	return i
}

func skipDigits(b []byte, i int) int {
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	return i
}

// isNumber tells a number from the other values that skipValue passes.
func isNumber(value []byte) bool { return value[0] == '-' || value[0]-'0' <= 9 }

func isHex(b []byte) bool {
	for _, c := range b {
		if hexValue[c] > 15 {
			return false
		}
	}
	return true
}

// hexValue holds the value of each hex digit, of either case, and 255 for
// every other byte.
var hexValue = func() (table [256]byte) {
	for i := range table {
		table[i] = 255
	}
	for i, c := range []byte("0123456789abcdef") {
		table[c] = byte(i)
	}
	for i, c := range []byte("ABCDEF") {
		table[c] = byte(10 + i)
	}
	return table
}()

// parseHex reads exactly digits hex digits, at most 16.
func parseHex(text []byte, digits int) (uint64, bool) {
	if len(text) != digits {
		return 0, false
	}
	var n uint64
	for _, c := range text {
		v := hexValue[c]
		if v > 15 {
			return 0, false
		}
		n = n<<4 | uint64(v)
	}
	return n, true
}
