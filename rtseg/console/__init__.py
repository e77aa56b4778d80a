"""The console: live pictures and masks in a browser, and the hand that points.

A small web server of its own process. It subscribes to feeds and sends them control requests, as anybody else may, so
it can crash or be absent without touching a feed.
"""
