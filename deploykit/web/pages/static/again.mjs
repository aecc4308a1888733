// Asks for the page again that a link from another site led to: what we ask for ourselves comes with our cookie, and
// the fragment of the address stays. Where a browser still takes a reload for the other site's, the fragment goes.
// With the origin before it: a path that begins with two slashes would be an address of another host.
if (performance.getEntriesByType("navigation")[0]?.type === "reload") location.replace(location.origin + location.pathname + location.search);
else location.reload();
