// The console's only script. Pages are right without it; it adds what changes while they are open.
console;
