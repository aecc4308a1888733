"""Many nodes at once: which there are, which are meant, and rollouts to them. Nothing here knows of git or of sites.

selector, selection, facts       which nodes are meant
inventory, discovery             which there are, and what they hold
plan, rollout                    what a rollout does next; pure
journal, coordinator             carry it out over a bus, and go on after a crash
view, trace                      what a person sees of it
"""
