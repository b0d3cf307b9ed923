package check

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pingcap/tidb/pkg/parser"
	"github.com/pingcap/tidb/pkg/parser/ast"
	_ "github.com/pingcap/tidb/pkg/parser/test_driver" // values of the syntax tree
)

var statement = regexp.MustCompile(`^[A-Z]{2,} `)

// changes collects the statements that stand as texts within another one, to be prepared.
type changes []string

func (c *changes) Enter(n ast.Node) (ast.Node, bool) {
	if v, ok := n.(ast.ValueExpr); ok {
		if text, ok := v.GetValue().(string); ok && statement.MatchString(text) {
			*c = append(*c, text)
		}
	}
	return n, false
}

func (c *changes) Leave(n ast.Node) (ast.Node, bool) { return n, true }

// TestMigrationsAreMySQL8 reads every statement of the migrations by MySQL 8's grammar and reserved words: the servers that
// tests have are MariaDB.
func TestMigrationsAreMySQL8(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(root, "internal/store/migrations/mysql/*.sql"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d migrations, %v", len(files), err)
	}
	p := parser.New()
	altered := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		statements, _, err := p.Parse(string(text), "utf8mb4", "utf8mb4_0900_ai_ci")
		if err != nil || len(statements) == 0 {
			t.Errorf("%s: %d statements, %v", file, len(statements), err)
		}
		for _, one := range statements {
			var within changes
			one.Accept(&within)
			for _, change := range within {
				if _, _, err := p.Parse(change, "utf8mb4", "utf8mb4_0900_ai_ci"); err != nil {
					t.Errorf("%s: %q: %v", file, change, err)
				}
				if strings.HasPrefix(change, "ALTER TABLE") {
					altered++
				}
			}
		}
	}
	if altered < 10 {
		t.Errorf("only %d changes of tables were read", altered)
	}
	for _, bad := range []string{"CREATE TABLE t (rank int)", "ALTER TABLE t ADD COLUMN IF NOT EXISTS", "CREATE TABLE t (a uuid)"} {
		if _, _, err := p.Parse(bad, "", ""); err == nil {
			t.Errorf("%q passes for MySQL 8", bad)
		}
	}
}
