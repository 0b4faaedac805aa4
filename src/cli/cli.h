/* SPDX-License-Identifier: MIT */
/* The subcommands of `weir`. They get argv from their own name on and return the exit status. */
#ifndef WEIR_CLI_H
#define WEIR_CLI_H

int weir_cmd_serve(int argc, char **argv);
int weir_cmd_supervise(int argc, char **argv);
int weir_cmd_gateway(int argc, char **argv);
int weir_cmd_control(int argc, char **argv); /* internal: started by weir-supervise */
int weir_cmd_check(int argc, char **argv);
int weir_cmd_explain(int argc, char **argv);
int weir_cmd_status(int argc, char **argv);
int weir_cmd_reload(int argc, char **argv);
int weir_cmd_restart(int argc, char **argv);
int weir_cmd_scale(int argc, char **argv);
int weir_cmd_stop(int argc, char **argv);
int weir_cmd_drain(int argc, char **argv);
int weir_cmd_reopen(int argc, char **argv);
int weir_cmd_suspend(int argc, char **argv);
int weir_cmd_resume(int argc, char **argv);
int weir_cmd_deny(int argc, char **argv);
int weir_cmd_allow(int argc, char **argv);
int weir_cmd_upgrade(int argc, char **argv);
int weir_cmd_call(int argc, char **argv);

#define WEIR_CONFIG_DEFAULT "/etc/weir/weir.conf"
#endif
