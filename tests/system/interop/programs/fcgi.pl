#!/usr/bin/perl
# SPDX-License-Identifier: MIT
use strict;
use warnings;
use FCGI;

my %env;
my $r = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%env);

sub header { print "Content-Type: application/octet-stream\r\n", @_, "\r\n" }
sub touch { open my $f, '>', $_[0] }

sub body {
    my $all = '';
    while (read(STDIN, $all, 65536, length $all)) { }
    return $all;
}

sub until_gone {
    header();
    for (1 .. 2000) {
        print "\0" x 16384 or return touch($_[0]);
        $r->Flush();
        select undef, undef, undef, 0.01;
    }
}

sub get {
    header("Status: 203 Other\r\nX-Matrix: from the program\r\n");
    print map { "$_=" . ($env{$_} // '') . "\n" } qw(REQUEST_METHOD QUERY_STRING HTTP_X_MATRIX MATRIX_USER);
}

sub respond {
    my ($what, $rest) = split /=/, $env{QUERY_STRING} // '', 2;
    $what //= '';
    if ($env{REQUEST_METHOD} eq 'POST') { my $all = body(); header(); print $all }
    elsif ($what eq 'big') { header(); print '0123456789abcdef' x 65536 }
    elsif ($what eq 'gone') { until_gone($rest) }
    else {
        for (1 .. 4000) { last if $what ne 'hold' or -e $rest; select undef, undef, undef, 0.005 }
        print STDERR "$rest\n" if $what eq 'err';
        get();
    }
}

sub authorize {
    if (($env{HTTP_X_MATRIX} // '') eq 'let me in') { print "Status: 200\r\nVariable-MATRIX_USER: ada\r\n\r\n" }
    else { header("Status: 403 No\r\n"); print "not you\n" }
}

sub filter {
    my $all = body();
    $r->FCGI::StartFilterData();
    $all .= body();
    header();
    print $all;
}

while ($r->Accept() >= 0) {
    if (($env{FCGI_ROLE} // '') eq 'AUTHORIZER') { authorize() }
    elsif (($env{FCGI_ROLE} // '') eq 'FILTER') { filter() }
    else { respond() }
}
