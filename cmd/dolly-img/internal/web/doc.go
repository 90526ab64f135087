// Package web serves one page that shows in a browser what a sender or a controller does now. The page is embedded, loads nothing from
// elsewhere, and only looks: no request changes anything.
//
// # Who may look
//
// Other people may have an account on the machine, so the path of the address begins with a random token, and a request without
// it learns nothing. A request is refused if its Host is a name that is not this server's, because a web page elsewhere could
// have a name of its own lead here (DNS rebinding). The page may load scripts and styles from here only, and its scripts put what nodes say into
// text, never into HTML. Connections, viewers and the time that each may take to read are bounded, so that no viewer takes
// anything from a transfer.
//
// # What is sent
//
// GET TOKEN/events answers with server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), each of which has
// one JSON object. A viewer that reads slowly is sent the newest state next, and not all that it has missed. A chain is a transfer, and c
// is its number.
//
//	event: head    {"c":1,"title":"app.sif","began":1764460800000,        milliseconds since 1970
//	                "states":[…],"waits":[…],"names":["n1","n2"],         st and wt below are places in the first two
//	                "history":[[0,0],[1,112000000]]}                      seconds since began, bytes per second
//	event: full    {"c":1,"n":7,"t":12.0,"phase":"sending","bytes":…,"total":…,"rate":…,"left":…,"done":0,"serving":2,
//	                "limit":"disk","slowest":"n2: disk 11 MB/s","result":"",
//	                "columns":{"pm":{"d":[430,425]},"fd":{"i":[0,1],"v":[0,1]}},
//	                "rows":[{"id":0,"state":"failed","why":"…","nodes":"n[1-2]","count":2,"since":9}]}    seconds since began
//	event: delta   the same, where it differs from what had the number n-1
//	event: gone    {"c":1}
//	event: warm    what a controller knows, as warmView has it
//	event: bye     the program ends
//
// A column has a number for each node. It is dense (d), or has values (v) for some nodes (i), of which each is given as the distance from
// the one before; others are as they were, or, in full, as at the beginning:
//
//	st  state, 0               wt  what it waits for, 0        wf  for whom: 0 the server, i node i, -1 nobody
//	si  since then, 0          pm  what it has, in ‰, 0        ck  what it has compared or read back, in ‰, 0
//	rt  rate in kB/s, 0        fd  who feeds it, -1            fl  1 linked, 2 bypassed, 4 slow; 0
//	ro  the row with its reason, -1
//
// A row is there while a node has it. rows are left out where they have not changed.
package web
