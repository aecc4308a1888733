"""Who may see protected sites: signed commands from the bus into the password files of nginx, Apache and haproxy."""
