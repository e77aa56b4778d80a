"""From bytes to packets: files, pipes, web servers and SRT; container formats; timestamps; damage that shows here."""
