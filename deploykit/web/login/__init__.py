"""Who looks: ways to log in, roles by site, sessions, and the headers that keep browsers safe."""
