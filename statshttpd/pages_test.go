//go:build integration

package statshttpd

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var shots = flag.String("shots", "", "keep pictures of the pages that tests open in this `folder`")

// shoot keeps a picture of the whole page, where that is wanted.
func (b *browser) shoot(name string) {
	b.t.Helper()
	if *shots == "" {
		return
	}
	var size struct {
		CSSContentSize struct{ Width, Height float64 }
	}
	b.call("Page.getLayoutMetrics", nil, &size)
	var picture struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{
		"captureBeyondViewport": true,
		"clip":                  map[string]any{"x": 0, "y": 0, "width": size.CSSContentSize.Width, "height": size.CSSContentSize.Height, "scale": 1},
	}, &picture)
	png, err := base64.StdEncoding.DecodeString(picture.Data)
	if err == nil {
		err = os.MkdirAll(*shots, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(*shots, strings.ReplaceAll(name, " ", "-")+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Error(err)
	}
}

// axe is Deque's axe-core, which knows what people with other senses need of a page.
func axe(t *testing.T) string {
	t.Helper()
	script, err := os.ReadFile("../.cache/axe-core/package/axe.min.js")
	if err != nil {
		t.Fatalf("%v (run test/install.sh)", err)
	}
	return string(script)
}

// judge waits until the page shows what it asked for, and checks that it is no wider than the screen, that no name became
// markup, that nobody but the pool was asked for anything, and that axe has nothing to say against it.
func (b *browser) judge(page, home, axe string) {
	b.t.Helper()
	b.await("document.documentElement.scrollWidth <= innerWidth", "true")
	if got := b.do(`[...document.querySelectorAll("[id]")].map((e) => e.id).filter((id, i, all) => all.indexOf(id) < i).join()`); got != "" {
		b.t.Errorf("%s: ids of several elements: %s", page, got)
	}
	if got := b.do(`document.querySelectorAll("img:not([src='/logo']), script:not([src^='/assets/']), iframe, object, embed, [style*=url], [onerror], [onload], a[href^='javascript']").length`); got != "0" {
		b.t.Errorf("%s: %s elements came from names", page, got)
	}
	b.mu.Lock()
	for _, address := range b.asked {
		if !strings.HasPrefix(address, home) && address != "about:blank" {
			b.t.Errorf("%s: asked for %s", page, address)
		}
	}
	b.mu.Unlock()
	b.do(`document.getAnimations().forEach((a) => a.finish instanceof Function && a.effect.getComputedTiming().endTime !== Infinity && a.finish())`)
	if b.do("typeof axe") != "object" {
		b.do(axe)
	}
	var answer struct{ Result struct{ Value string } }
	b.call("Runtime.evaluate", map[string]any{
		"expression": `axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => JSON.stringify(violations.flatMap((v) =>
			v.nodes.map((n) => v.id + ": " + n.target.join(" ") + ": " + n.failureSummary.replaceAll("\n", " ")))))`,
		"awaitPromise": true, "returnByValue": true,
	}, &answer)
	var violations []string
	if err := json.Unmarshal([]byte(answer.Result.Value), &violations); err != nil {
		b.t.Fatalf("%s: axe says %q: %v", page, answer.Result.Value, err)
	}
	for _, v := range violations {
		b.t.Errorf("%s: %s", page, v)
	}
	b.check(page)
	b.shoot(page)
}

// like has the browser be one of that width, theme and language.
func (b *browser) like(width int, theme, language string) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": theme}}}, nil)
	var version struct{ UserAgent string }
	b.call("Browser.getVersion", nil, &version)
	b.call("Emulation.setUserAgentOverride", map[string]any{"userAgent": version.UserAgent, "acceptLanguage": language}, nil)
}

func (b *browser) click(selector string) {
	b.t.Helper()
	b.await(fmt.Sprintf("document.querySelector(%q) !== null", selector), "true")
	b.do(fmt.Sprintf("document.querySelector(%q).click()", selector))
}

const (
	minerName = `document.getElementById("miner-name").textContent`
	homeShown = `!document.getElementById("main").hidden && document.getElementById("miner").hidden && !document.getElementById("servers").hidden &&
		!document.getElementById("rejects").hidden && document.querySelectorAll("#workers tbody tr").length > 10 && document.querySelectorAll("#blocks tbody tr").length > 5`
	unknownShown = `!document.getElementById("miner-unknown").hidden && document.getElementById("details").hidden`
)

func minerShown(panel string) string {
	return fmt.Sprintf(`document.getElementById("main").hidden && !document.getElementById(%q).hidden && !document.getElementById("miner-rejects").hidden &&
		document.querySelector("#miner-hashrate .line") !== null && (%q !== "machines" || document.querySelector("#machines tbody tr") !== null)`, panel, panel)
}

// TestPagesInBrowser opens each page on a screen and on a phone, dark and light, in English and Chinese. Names are
// hostile.
func TestPagesInBrowser(t *testing.T) {
	s := newTestService(t, time.Now().Truncate(time.Second))
	s.farm(t)
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	t.Cleanup(s.hub.stop)
	rules := axe(t)
	b := openBrowser(t)
	for _, language := range []string{"en", "zh-CN"} {
		for _, page := range []struct{ name, path, shown string }{
			{"home", "/", homeShown},
			{"user", "/#/user/aurora", minerShown("machines")},
			{"worker", "/#/worker/aurora/s21-02", minerShown("details")},
			{"hostile user", "/#/user/" + url.PathEscape(hostileUser), minerShown("machines")},
			{"hostile worker", "/#/worker/" + url.PathEscape(hostileUser) + "/" + url.PathEscape(hostileWorker), minerShown("details")},
			{"unknown", "/#/worker/nobody/" + url.PathEscape(hostileWorker), unknownShown},
		} {
			b.like(1280, "dark", language)
			b.open(server.URL + page.path)
			b.await(page.shown, "true")
			b.await(`document.documentElement.lang + document.querySelector(".language").textContent`, map[string]string{"en": "en中文", "zh-CN": "zh-HansEnglish"}[language])
			b.weigh(page.name + " " + language)
			for _, width := range []int{1280, 390} {
				for _, theme := range []string{"dark", "light"} {
					b.like(width, theme, language)
					on := fmt.Sprintf("%s %d %s %s", page.name, width, theme, language)
					if bright := b.do(`getComputedStyle(document.body).backgroundColor`); (bright == "rgb(12, 14, 18)") != (theme == "dark") {
						t.Errorf("%s: the ground is %s", on, bright)
					}
					b.judge(on, server.URL, rules)
				}
			}
		}
	}
}

// TestWayThroughPages goes through the pages as a miner does: by clicks, back, reload and search.
func TestWayThroughPages(t *testing.T) {
	s := newTestService(t, time.Now().Truncate(time.Second))
	s.farm(t)
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	t.Cleanup(s.hub.stop)
	b := openBrowser(t)
	b.like(1280, "light", "en")
	b.open(server.URL + "/")
	b.await(homeShown, "true")
	b.await(`document.querySelector("#blocks tbody a").href`, "https://mempool.space/block/"+b.do(`document.querySelector("#blocks tbody tr").dataset.key`))
	b.click("#workers tbody a[href*='onerror']")
	b.await(minerShown("details"), "true")
	b.await(minerName, hostileWorker)
	b.click("#crumbs a:last-child")
	b.await(minerShown("machines"), "true")
	b.await(minerName, hostileUser)
	b.do("history.back()")
	b.await(minerName, hostileWorker)
	b.do("location.reload()")
	b.await(minerShown("details"), "true")
	b.await(minerName, hostileWorker)

	for _, text := range []struct{ typed, found string }{{"s17-retired", "s17-retired"}, {"aurora", "aurora"}, {"aurora.s21-02", "s21-02"}, {hostileWorker, hostileWorker}} {
		b.do(fmt.Sprintf(`document.getElementById("find-text").value = %q; document.getElementById("find").requestSubmit()`, text.typed))
		b.await(minerName, text.found)
	}
	b.click(".brand a")
	b.await(homeShown, "true")
	b.click("#blocks tbody .finder")
	b.await(minerName, "s21-02")

	b.open(server.URL + "/#/user/aurora")
	b.await(minerShown("machines"), "true")
	first := `document.querySelector("#machines tbody .name").textContent`
	b.await(first, "s17-retired") // is silent
	b.click("#machines [data-sort=name]")
	b.await(`document.querySelector("#machines [aria-sort]").getAttribute("aria-sort")`, "ascending")
	b.await(first, "s17-retired")
	b.click("#machines [data-name=online]")
	b.await(first, "s21-01")
	const chart = "#miner-hashrate "
	label := func(of string) string {
		return fmt.Sprintf(`document.querySelector("#miner-hashrate .chart").getAttribute("aria-label").startsWith("Hashrate of the last %s: at its end")`, of)
	}
	for _, of := range []string{"day", "week", "month", "year"} {
		b.click(chart + "[data-name=" + of + "]")
		b.await(label(of), "true")
	}
	b.check("all ranges")
	b.do(`const askServer = fetch; fetch = (what, ...more) => String(what).includes("step=minute") ? Promise.reject(new Error("away")) : askServer(what, ...more)`)
	b.click(chart + "[data-name=day]")
	b.await(`document.querySelector("#miner-hashrate [aria-pressed=true]").dataset.name`, "year") // that is shown still
	b.await(label("year"), "true")
	b.check("the way")
}

// TestPushToPages has a page show what the pool pushes, without asking for it; do nothing while it is hidden; say that
// the pool has gone; and ask where nothing can be pushed.
func TestPushToPages(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	s := newTestService(t, now)
	s.small(t)
	down := make(chan bool, 1)
	down <- false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		is := <-down
		down <- is
		if is {
			panic(http.ErrAbortHandler)
		}
		s.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { s.hub.stop() })
	isDown := func(is bool) { <-down; down <- is }

	b := openBrowser(t)
	b.like(1280, "dark", "en")
	state := `document.getElementById("link").dataset.state`
	chain := `document.getElementById("chain").textContent`
	b.open(server.URL + "/")
	b.await(state, "live")
	listening := func(want int64) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); s.hub.listeners.Load() != want; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d listen, want %d", s.hub.listeners.Load(), want)
			}
		}
	}
	listening(1)
	asked := func() (all []string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, address := range b.asked {
			if strings.HasSuffix(address, "/api/v1/pool") || strings.Contains(address, "/events") {
				all = append(all, address)
			}
		}
		return all
	}
	for _, name := range []string{"one", "two", "three"} {
		s.cfg.Network = name
		s.hub.turn()
		b.await(chain, name)
	}
	if got := asked(); !slices.Equal(got, []string{server.URL + "/api/v1/events"}) {
		t.Errorf("asked for %v, want for events once", got)
	}

	hide := func(is bool) {
		b.do(fmt.Sprintf(`Object.defineProperty(document, "hidden", { value: %t, configurable: true }); document.dispatchEvent(new Event("visibilitychange"))`, is))
	}
	hide(true)
	listening(0)
	s.cfg.Network = "four"
	s.hub.turn()
	b.mu.Lock()
	before := len(b.asked)
	b.mu.Unlock()
	b.do(`new Promise((done) => setTimeout(done, 0))`)
	b.await(chain, "three")
	b.mu.Lock()
	if len(b.asked) != before {
		t.Errorf("hidden, the page asked for %v", b.asked[before:])
	}
	b.mu.Unlock()
	hide(false)
	b.await(chain, "four")
	b.check("pushed")

	isDown(true)
	s.hub.stop() // ends what is open
	b.await(state, "lost")
	b.await(`document.getElementById("link-text").textContent.startsWith("Connection lost, figures of ")`, "true")
	b.await(`document.body.classList.contains("old")`, "true")
	listening(0)
	b.mu.Lock()
	b.faults = nil // a browser says that nobody answered
	b.mu.Unlock()
	s.hub = newHub()
	s.cfg.Network = "five"
	isDown(false)
	b.await(state, "live")
	b.await(chain, "five")
	b.await(`document.body.classList.contains("old")`, "false")
	listening(1)
	b.check("back")

	s.cfg.MaxEventClients = 0
	b.open(server.URL + "/#/user/ann")
	b.await(minerName, "ann")
	b.await(state, "live")
	s.cfg.Network = "six"
	b.await(chain, "six")
	listening(0)
	if got := asked(); len(got) < 3 || strings.Contains(got[len(got)-1], "/events") {
		t.Errorf("asked for %v, want for events once, and for the pool again and again", got)
	}
}
