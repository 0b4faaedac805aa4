#!/usr/bin/perl
# SPDX-License-Identifier: MIT
use strict;
use warnings;
use IO::Async::Loop;
use IO::Async::Timer::Countdown;
use IO::Handle;
use Net::Async::FastCGI;

my $loop = IO::Async::Loop->new;

sub header { my $req = shift; $req->print_stdout(join '', "Content-Type: application/octet-stream\r\n", @_, "\r\n") }
sub touch { open my $f, '>', $_[0] }

# Calls again until it says that it is done.
sub every {
    my ($seconds, $done) = @_;
    $done->() or $loop->watch_time(after => $seconds, code => sub { every($seconds, $done) });
}

sub until_gone {
    my ($req, $noticed) = @_;
    my $left = 2000;
    header($req);
    every(0.01, sub {
        if ($req->is_aborted) { touch($noticed); return 1 }
        if (!$left--) { $req->finish(0); return 1 }
        $req->print_stdout("\0" x 16384);
        return 0;
    });
}

sub get {
    my ($req) = @_;
    header($req, "Status: 203 Other\r\nX-Matrix: from the program\r\n");
    $req->print_stdout("$_=" . ($req->param($_) // '') . "\n") for qw(REQUEST_METHOD QUERY_STRING HTTP_X_MATRIX MATRIX_USER);
    $req->finish(0);
}

sub respond {
    my ($fcgi, $req) = @_;
    my ($what, $rest) = split /=/, $req->query_string, 2;
    $what //= '';
    $req->set_encoding(undef);
    if ($req->method eq 'POST') { header($req); $req->print_stdout($req->read_stdin); $req->finish(0) }
    elsif ($what eq 'big') { header($req); $req->print_stdout('0123456789abcdef' x 65536); $req->finish(0) }
    elsif ($what eq 'gone') { until_gone($req, $rest) }
    elsif ($what eq 'hold') { every(0.005, sub { -e $rest or return 0; get($req); 1 }) }
    else { $req->print_stderr("$rest\n") if $what eq 'err'; get($req) }
}

open my $socket, '<&=', 0 or die;
bless $socket, 'IO::Socket';
require IO::Socket;
$socket->blocking(0);
$loop->add(Net::Async::FastCGI->new(handle => $socket, on_request => \&respond));
$loop->run;
