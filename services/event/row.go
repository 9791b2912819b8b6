package event

// Rows is the number of events.
func (b *Batch) Rows() int { return b.rows }

// Codes returns a Dict field's dictionary code by row. What depends on the
// value alone is decided once per code, not once per row.
func (b *Batch) Codes(field int) []uint16 { return b.cols[field].codes }

// DictLen is the number of distinct values of a Dict field.
func (b *Batch) DictLen(field int) int { return b.cols[field].values.len() }

// DictValue is the value behind a code; it aliases the batch.
func (b *Batch) DictValue(field int, code uint16) string { return b.cols[field].values.at(int(code)) }

// Text returns a Dict or Text field of a row; it aliases the batch.
func (b *Batch) Text(field, row int) string {
	c := &b.cols[field]
	switch {
	case !c.present:
		return ""
	case c.codes != nil:
		return c.values.at(int(c.codes[row]))
	}
	return c.values.at(row)
}

// Int returns a Time or Int field of a row, and whether it is there.
func (b *Batch) Int(field, row int) (int64, bool) {
	c := &b.cols[field]
	if !c.has(row) {
		return 0, false
	}
	return c.ints[row], true
}

// Ints returns a Time or Int field by row, nulls as 0 or anything: for fields
// that are always there.
func (b *Batch) Ints(field int) []int64 { return b.cols[field].ints }

// Float returns a Float field of a row, and whether it is there.
func (b *Batch) Float(field, row int) (float64, bool) {
	c := &b.cols[field]
	if !c.has(row) {
		return 0, false
	}
	return c.floats[row], true
}

func (c *view) has(row int) bool {
	return c.present && (c.valid == nil || c.valid[row/8]&(1<<(row%8)) != 0)
}

// Labels appends a row's labels to dst; they alias the batch.
func (b *Batch) Labels(row int, dst []Label) []Label {
	c := &b.cols[FLabels]
	if !c.present {
		return dst
	}
	for i := c.lists[row]; i < c.lists[row+1]; i++ {
		dst = append(dst, Label{c.keys.at(int(i)), c.values.at(int(i))})
	}
	return dst
}

// Label returns one label of a row, or "".
func (b *Batch) Label(row int, key string) string {
	c := &b.cols[FLabels]
	if !c.present {
		return ""
	}
	for i := c.lists[row]; i < c.lists[row+1]; i++ {
		if c.keys.at(int(i)) == key {
			return c.values.at(int(i))
		}
	}
	return ""
}

// Event fills e with a row; its texts alias the batch. Labels reuse e's slice.
func (b *Batch) Event(row int, e *Event) {
	labels := e.Labels[:0]
	*e = Event{}
	for i := range Fields {
		switch Fields[i].Type {
		case Dict, Text:
			*e.Text(i) = b.Text(i, row)
		case Time, Int:
			p, has := e.Int(i)
			if v, ok := b.Int(i, row); ok {
				*p = v
				e.Has |= has
			}
		case Float:
			p, has := e.Float(i)
			if v, ok := b.Float(i, row); ok {
				*p = v
				e.Has |= has
			}
		case Map:
			e.Labels = b.Labels(row, labels)
		}
	}
}

// Merge rebuilds messages into one, rows in order: what many small messages
// cost ClickHouse, one does not. The same messages give the same bytes.
func Merge(msgs [][]byte) ([]byte, error) {
	b := NewBuilder()
	var e Event
	for i, m := range msgs {
		batch, err := Decode(m)
		if err != nil {
			return nil, wrapAt("merge", i, len(msgs), err)
		}
		for row := range batch.Rows() {
			batch.Event(row, &e)
			if err := b.Append(&e); err != nil {
				batch.Release()
				return nil, wrapAt("merge", i, len(msgs), err)
			}
		}
		batch.Release()
	}
	return b.Encode()
}
