/** Examples of GitHub Flavored Markdown's specification (0.29), by their numbers there: [Markdown, HTML]. */

/** @type {Record<number, [string, string]>} */
export const EXAMPLES = {
  198: [
    "| foo | bar |\n| --- | --- |\n| baz | bim |\n",
    "<table><thead><tr><th>foo</th><th>bar</th></tr></thead><tbody><tr><td>baz</td><td>bim</td></tr></tbody></table>",
  ],
  199: [
    "| abc | defghi |\n:-: | -----------:\nbar | baz\n",
    `<table><thead><tr><th align="center">abc</th><th align="right">defghi</th></tr></thead>
<tbody><tr><td align="center">bar</td><td align="right">baz</td></tr></tbody></table>`,
  ],
  200: [
    "| f\\|oo  |\n| ------ |\n| b `\\|` az |\n| b **\\|** im |\n",
    `<table><thead><tr><th>f|oo</th></tr></thead>
<tbody><tr><td>b <code>|</code> az</td></tr><tr><td>b <strong>|</strong> im</td></tr></tbody></table>`,
  ],
  201: [
    "| abc | def |\n| --- | --- |\n| bar | baz |\n> bar\n",
    `<table><thead><tr><th>abc</th><th>def</th></tr></thead><tbody><tr><td>bar</td><td>baz</td></tr></tbody></table>
<blockquote><p>bar</p></blockquote>`,
  ],
  202: [
    "| abc | def |\n| --- | --- |\n| bar | baz |\nbar\n\nbar\n",
    `<table><thead><tr><th>abc</th><th>def</th></tr></thead>
<tbody><tr><td>bar</td><td>baz</td></tr><tr><td>bar</td><td></td></tr></tbody></table><p>bar</p>`,
  ],
  203: ["| abc | def |\n| --- |\n| bar |\n", "<p>| abc | def |\n| --- |\n| bar |</p>"],
  204: [
    "| abc | def |\n| --- | --- |\n| bar |\n| bar | baz | boo |\n",
    `<table><thead><tr><th>abc</th><th>def</th></tr></thead>
<tbody><tr><td>bar</td><td></td></tr><tr><td>bar</td><td>baz</td></tr></tbody></table>`,
  ],
  205: ["| abc | def |\n| --- | --- |\n", "<table><thead><tr><th>abc</th><th>def</th></tr></thead></table>"],
  279: [
    "- [ ] foo\n- [x] bar\n",
    `<ul><li><input disabled="" type="checkbox"> foo</li><li><input checked="" disabled="" type="checkbox"> bar</li></ul>`,
  ],
  280: [
    "- [x] foo\n  - [ ] bar\n  - [x] baz\n- [ ] bim\n",
    `<ul><li><input checked="" disabled="" type="checkbox"> foo<ul><li><input disabled="" type="checkbox"> bar</li>
<li><input checked="" disabled="" type="checkbox"> baz</li></ul></li>
<li><input disabled="" type="checkbox"> bim</li></ul>`,
  ],
  491: ["~~Hi~~ Hello, ~there~ world!\n", "<p><del>Hi</del> Hello, <del>there</del> world!</p>"],
  492: ["This ~~has a\n\nnew paragraph~~.\n", "<p>This ~~has a</p><p>new paragraph~~.</p>"],
  493: ["This will ~~~not~~~ strike.\n", "<p>This will ~~~not~~~ strike.</p>"],
  622: ["www.commonmark.org\n", '<p><a href="http://www.commonmark.org">www.commonmark.org</a></p>'],
  623: [
    "Visit www.commonmark.org/help for more information.\n",
    '<p>Visit <a href="http://www.commonmark.org/help">www.commonmark.org/help</a> for more information.</p>',
  ],
  624: [
    "Visit www.commonmark.org.\n\nVisit www.commonmark.org/a.b.\n",
    `<p>Visit <a href="http://www.commonmark.org">www.commonmark.org</a>.</p>
<p>Visit <a href="http://www.commonmark.org/a.b">www.commonmark.org/a.b</a>.</p>`,
  ],
  630: ["foo@bar.baz\n", '<p><a href="mailto:foo@bar.baz">foo@bar.baz</a></p>'],
};
