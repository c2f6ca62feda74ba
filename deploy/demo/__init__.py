"""`make demo`: Switchyard's main job on one machine, from nothing, with messages that anybody can read."""
