package upgradetest

import (
	"errors"
	"net/netip"
	"reflect"
	"time"
	"unsafe"

	"btcpool/internal/poll"
)

// Moment is a time that Fields fills in.
var Moment = time.Unix(1_700_000_000, 5).UTC()

// Left are the fields of structs that do not pass to another process, and why.
type Left map[reflect.Type]map[string]string

// Missing returns fields that their structs do not have.
func (l Left) Missing() (names []string) {
	for of, fields := range l {
		for name := range fields {
			if _, ok := of.FieldByName(name); !ok {
				names = append(names, of.String()+"."+name)
			}
		}
	}
	return names
}

// Fields gives each field that passes a value of its own, as far as its type has so many. Those that refer to something
// of Known refer to that.
type Fields struct {
	Left  Left
	Known map[reflect.Type]reflect.Value

	next int
}

// Field returns a field that can be set, also one that is not exported.
func Field(v reflect.Value, i int) reflect.Value {
	f := v.Field(i)
	return reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem()
}

// Struct fills the fields of a struct.
func (f *Fields) Struct(v reflect.Value) {
	for i := range v.NumField() {
		if f.Left[v.Type()][v.Type().Field(i).Name] == "" {
			f.Fill(Field(v, i))
		}
	}
}

// Fill fills v.
func (f *Fields) Fill(v reflect.Value) {
	f.next++
	if to, ok := f.Known[v.Type()]; ok {
		v.Set(to)
		return
	}
	switch at := v.Addr().Interface().(type) {
	case *time.Time:
		*at = Moment.Add(time.Duration(f.next))
		return
	case *netip.Addr:
		*at = netip.AddrFrom4([4]byte{192, 0, 2, byte(f.next)})
		return
	case *poll.Outbox:
		at.Restore([]byte("unsent"), f.next%6+1, Moment.Add(time.Duration(f.next)))
		return
	case *error:
		*at = errors.New("error " + string(rune('a'+f.next%26)))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(f.next%50 + 1))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(f.next%50 + 1))
	case reflect.Float64:
		v.SetFloat(float64(f.next))
	case reflect.String:
		v.SetString("text" + string(rune('a'+f.next%26)))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.Fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		f.Fill(v.Index(0))
		f.Fill(v.Index(1))
	case reflect.Array:
		for i := range v.Len() {
			f.Fill(v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.Fill(key)
			f.Fill(value)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		f.Struct(v)
	default:
		panic("no value for " + v.Type().String()) //nolint:forbidigo // of a test
	}
}

// Strip zeroes what does not pass, once for each struct of a package that is below v, or below something seen.
func (l Left) Strip(pkg string, v reflect.Value, seen map[unsafe.Pointer]bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() || seen[v.UnsafePointer()] {
			return
		}
		seen[v.UnsafePointer()] = true
		l.Strip(pkg, v.Elem(), seen)
	case reflect.Slice:
		for i := range v.Len() {
			l.Strip(pkg, v.Index(i), seen)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			if value := v.MapIndex(key); value.Kind() == reflect.Pointer {
				l.Strip(pkg, value, seen)
			}
		}
	case reflect.Struct:
		if v.Type().PkgPath() != pkg {
			return
		}
		for i := range v.NumField() {
			if f := Field(v, i); l[v.Type()][v.Type().Field(i).Name] != "" {
				f.SetZero()
			} else {
				l.Strip(pkg, f, seen)
			}
		}
	}
}
