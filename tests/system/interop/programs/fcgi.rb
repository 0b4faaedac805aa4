#!/usr/bin/ruby
# SPDX-License-Identifier: MIT
require 'fcgi'
require 'fileutils'

def header(out, more = '')
  out.print "Content-Type: application/octet-stream\r\n#{more}\r\n"
end

def until_gone(out, noticed)
  header(out)
  2000.times do
    out.print "\0" * 16384
    out.flush
    sleep 0.01
  end
rescue StandardError
  FileUtils.touch(noticed)
end

def get(env, out)
  header(out, "Status: 203 Other\r\nX-Matrix: from the program\r\n")
  %w[REQUEST_METHOD QUERY_STRING HTTP_X_MATRIX MATRIX_USER].each { |name| out.print "#{name}=#{env[name]}\n" }
end

FCGI.each do |r|
  what, rest = (r.env['QUERY_STRING'] || '').split('=', 2)
  if r.env['REQUEST_METHOD'] == 'POST'
    all = r.in.read
    header(r.out)
    r.out.print all
  elsif what == 'big'
    header(r.out)
    r.out.print '0123456789abcdef' * 65536
  elsif what == 'gone'
    until_gone(r.out, rest)
  else
    4000.times { break if what != 'hold' || File.exist?(rest); sleep 0.005 }
    r.err.print "#{rest}\n" if what == 'err'
    get(r.env, r.out)
  end
  r.finish
end
