package sharefile

// WriteWhile writes what a day's file waits for, as Flush does, and has somebody do something meanwhile: before the
// bytes are in the file, or after.
func (w *Writer) WriteWhile(day Day, before, after func()) (err error) {
	f := w.days[day]
	w.flush++
	w.files = 1
	if f.member, err = w.encode(f); err != nil {
		return err
	}
	f.records, f.shares = f.records[:0], 0
	file, err := w.openEnd(Path(w.dir, w.chain, day), f)
	if err != nil {
		return err
	}
	defer file.Close()
	before()
	if _, err := file.WriteAt(f.member.data, f.size); err != nil {
		return err
	}
	after()
	return w.append(file, f) // the same bytes again
}
